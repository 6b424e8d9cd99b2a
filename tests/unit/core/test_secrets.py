"""Secrets: every one can be made, checked and fingerprinted, and none is ever in a message."""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keadb.secrets import SECRETS, SECRETS_BY_NAME, SecretSpec, fingerprint, generate, problem, ssh_public_key

NAMES = (
    "deploy_key ca_key fingerprint_key etcd_root_password etcd_patroni_a_password etcd_patroni_b_password "
    "patroni_rest_password kea_owner_a_password kea_owner_b_password kea_read_a_password kea_read_b_password"
)


def test_names_are_those_that_stack_files_hold() -> None:
    """A renamed secret would be asked for again at every site."""
    assert [spec.name for spec in SECRETS] == NAMES.split()
    assert SECRETS_BY_NAME["ca_key"].config_key == "keadb:secret_ca_key"


@pytest.mark.parametrize("spec", SECRETS, ids=lambda spec: spec.name)
def test_what_is_made_is_usable_and_new_each_time(spec: SecretSpec) -> None:
    """A generated value passes its own check, differs each time, and needs no quoting in YAML."""
    first, second = generate(spec), generate(spec)
    assert problem(spec, first) is problem(spec, second) is None
    assert first != second
    if spec.kind == "password":
        assert re.fullmatch(r"[A-Za-z0-9_-]{24}", first)


@pytest.mark.parametrize("spec", SECRETS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("value", ["Hunter2", "", None, 3, "Hunter2 Hunter2 Hunter2 Hunter2", "Hunter2-" * 40])
def test_unusable_values_are_refused_without_showing_them(spec: SecretSpec, value: object) -> None:
    """The message names the key and what is allowed; the value may be a real password with a slip."""
    said = problem(spec, value)
    assert said is not None
    assert said.startswith(f"keadb:secret_{spec.name}: is not usable")
    assert "Hunter2" not in said


def test_keys_of_the_wrong_kind_are_refused() -> None:
    """An RSA or P-384 CA, or one with a passphrase, fails here and not in the middle of a run."""
    ca, deploy = SECRETS_BY_NAME["ca_key"], SECRETS_BY_NAME["deploy_key"]
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    p384 = ec.generate_private_key(ec.SECP384R1()).private_bytes(pem, pkcs8, plain).decode()
    other = rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, plain).decode()
    locked = serialization.BestAvailableEncryption(b"x" * 20)
    protected = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, locked).decode()
    for value in (p384, other, protected, generate(deploy)):
        assert problem(ca, value)
    for value in (p384, generate(ca)):
        assert problem(deploy, value)


def test_public_half_of_the_deploy_key() -> None:
    """Hosts get this line; it belongs to the private half and carries no comment."""
    key = generate(SECRETS_BY_NAME["deploy_key"])
    line = ssh_public_key(key)
    private = serialization.load_ssh_private_key(key.encode(), None)
    assert serialization.load_ssh_public_key(line.encode()) == private.public_key()
    assert len(line.split()) == 2
    with pytest.raises(ValueError, match="not an Ed25519") as caught:
        ssh_public_key("Hunter2")
    assert "Hunter2" not in str(caught.value)


def test_fingerprints() -> None:
    """Fixed over time (it is in every host's state); differs by key, name and value; shows nothing of the value."""
    assert fingerprint("k", "ca_key", "v") == "c32095a1639d15cbcca83121dffddfe9"
    others = {fingerprint(*parts) for parts in (("K", "ca_key", "v"), ("k", "ca_ke", "yv"), ("k", "ca_key", "w"))}
    assert len(others | {fingerprint("k", "ca_key", "v")}) == 4
