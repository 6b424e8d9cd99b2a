"""SCRAM verifiers: against the RFC's example, and against what PostgreSQL itself makes (test_real_database)."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from hostkit import scram

# RFC 7677 section 3: user "user", password "pencil", 4096 iterations. The RFC gives the proofs; from them follow
# the stored and the server key that a verifier holds.
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
AUTH_MESSAGE = (
    "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    f"s={SALT},i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_verifier_proves_the_exchange_of_rfc_7677() -> None:
    made = scram.verifier("pencil", salt=base64.b64decode(SALT))
    head, keys = made.rsplit("$", 1)
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    assert head == f"SCRAM-SHA-256$4096:{SALT}"
    signature = hmac.digest(stored, AUTH_MESSAGE.encode(), "sha256")
    client_key = bytes(a ^ b for a, b in zip(base64.b64decode(PROOF), signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    assert hmac.digest(server, AUTH_MESSAGE.encode(), "sha256") == base64.b64decode(SERVER_SIGNATURE)


def test_same_password_other_salt_each_time() -> None:
    one, two = scram.verifier("x" * 24), scram.verifier("x" * 24)
    assert one != two
    assert scram.matches("x" * 24, one)
    assert scram.matches("x" * 24, two)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:broken",
        "SCRAM-SHA-256$0:c2FsdA==$YQ==:Yg==",
        "SCRAM-SHA-256$4096:c2F=$YQ==:Yg==",
        scram.verifier("another password 123"),
    ],
)
def test_anything_else_does_not_match(stored: str | None) -> None:
    assert not scram.matches("the password", stored)


def test_existing_iterations_count_and_not_ours() -> None:
    assert scram.matches("secret", scram.verifier("secret", iterations=10_000))
