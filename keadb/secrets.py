"""The secrets of a site: their names, how they are made, what a usable value is, and their fingerprints.

`generate` is the one place in the core with randomness; only ``keadb secrets init`` calls it. Nothing here stores,
logs or prints a value, and no message holds one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as randomness
import string
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PASSWORD_ALPHABET = string.ascii_letters + string.digits + "_-"
PASSWORD_LENGTH = 24
_PASSWORD = re.compile(r"[A-Za-z0-9_-]{20,128}")


class SecretKind(StrEnum):
    """What a secret's value looks like."""

    PASSWORD = "password"  # noqa: S105 - the name of a kind
    SSH_KEY = "ssh-key"
    CA_KEY = "ca-key"
    FINGERPRINT_KEY = "fingerprint-key"


@dataclass(frozen=True, kw_only=True)
class SecretSpec:
    """A secret that every site has; its configuration key is ``keadb:secret_<name>``."""

    name: str
    kind: SecretKind
    doc: str

    @property
    def config_key(self) -> str:
        """Key in the stack file, with the namespace."""
        return f"keadb:secret_{self.name}"


def _password(name: str, doc: str) -> SecretSpec:
    return SecretSpec(name=name, kind=SecretKind.PASSWORD, doc=doc)


SECRETS: tuple[SecretSpec, ...] = (
    SecretSpec(name="deploy_key", kind=SecretKind.SSH_KEY, doc="the site's identity toward its hosts (SSH)"),
    SecretSpec(name="ca_key", kind=SecretKind.CA_KEY, doc="key of the site's certificate authority"),
    SecretSpec(
        name="fingerprint_key",
        kind=SecretKind.FINGERPRINT_KEY,
        doc="keys the fingerprints that show a rotated secret without showing the secret",
    ),
    _password("etcd_root_password", "etcd's administrator, used by cluster-level steps"),
    _password("etcd_patroni_a_password", "Patroni's login patroni_a at etcd, limited to the cluster's prefix"),
    _password("etcd_patroni_b_password", "login patroni_b at etcd, the other of the pair"),
    _password("patroni_rest_password", "changes through Patroni's REST interface"),
    _password("kea_owner_a_password", "login kea_owner_a, which owns Kea's schema through kea_owner"),
    _password("kea_owner_b_password", "login kea_owner_b, the other of the pair"),
    _password("kea_read_a_password", "login kea_read_a, with which Kea reads reservations"),
    _password("kea_read_b_password", "login kea_read_b, the other of the pair"),
)

SECRETS_BY_NAME = {spec.name: spec for spec in SECRETS}


def generate(spec: SecretSpec) -> str:
    """Return a new random value for ``spec``."""
    match spec.kind:
        case SecretKind.PASSWORD:
            return "".join(randomness.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_LENGTH))
        case SecretKind.FINGERPRINT_KEY:
            return randomness.token_hex(32)
        case SecretKind.SSH_KEY:
            ssh = ed25519.Ed25519PrivateKey.generate()
            return ssh.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ).decode()
        case SecretKind.CA_KEY:
            ca = ec.generate_private_key(ec.SECP256R1())
            return ca.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode()


def problem(spec: SecretSpec, value: object) -> str | None:
    """Return what is wrong with a given value (never the value itself), or None."""
    allowed = {
        SecretKind.PASSWORD: "20 to 128 characters of A-Z a-z 0-9 _ -",
        SecretKind.FINGERPRINT_KEY: "64 hexadecimal digits, lower case",
        SecretKind.SSH_KEY: "an Ed25519 private key in OpenSSH format without passphrase",
        SecretKind.CA_KEY: "an ECDSA P-256 private key in PEM format without passphrase",
    }[spec.kind]
    if isinstance(value, str) and _fits(spec.kind, value):
        return None
    return f"{spec.config_key}: is not usable; given a value that is not shown, allowed: {allowed}"


def _fits(kind: SecretKind, value: str) -> bool:
    match kind:
        case SecretKind.PASSWORD:
            return _PASSWORD.fullmatch(value) is not None
        case SecretKind.FINGERPRINT_KEY:
            return re.fullmatch(r"[0-9a-f]{64}", value) is not None
        case SecretKind.SSH_KEY:
            try:
                key: object = serialization.load_ssh_private_key(value.encode(), password=None)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                return False
            return isinstance(key, ed25519.Ed25519PrivateKey)
        case SecretKind.CA_KEY:
            try:
                key = serialization.load_pem_private_key(value.encode(), password=None)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                return False
            return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)


def ssh_public_key(deploy_key: str) -> str:
    """Return the public half of the deploy key as an authorized_keys line without comment.

    Raises ValueError (without the key) when it is not such a key.
    """
    if not _fits(SecretKind.SSH_KEY, deploy_key):
        message = "the deploy key is not an Ed25519 private key in OpenSSH format"
        raise ValueError(message)
    key = serialization.load_ssh_private_key(deploy_key.encode(), password=None)
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def fingerprint(key: str, name: str, value: str) -> str:
    """Return the keyed fingerprint of a secret: 32 hexadecimal digits of HMAC-SHA256 over its name and value.

    ``key`` is the site's fingerprint key. Without it nobody can test guesses against a fingerprint that a diff shows.
    """
    mac = hmac.new(key.encode(), f"{name}\0{value}".encode(), hashlib.sha256)
    return mac.hexdigest()[:32]
