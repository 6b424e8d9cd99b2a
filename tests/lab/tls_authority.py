"""Certificates that tests need: right ones, and each kind that must be refused."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RIGHT, WRONG_NAME, EXPIRED, FOREIGN = "right", "wrong name", "expired", "foreign CA"
BAD = (WRONG_NAME, EXPIRED, FOREIGN)
OTHER = ("other.example.com", "192.0.2.1")
"""Names that nothing in a site has."""
_NAMES = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "keadb")])


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """A CA that signs whatever a test asks for: the site's own, by its key, or another one of the same name.

    Each bad certificate differs from the right one in just what its kind says, so that a refusal is for that.
    """

    def __init__(self, ca_pem: str, key_pem: str) -> None:
        self._ca = x509.load_pem_x509_certificate(ca_pem.encode())
        self._foreign = ec.generate_private_key(ec.SECP256R1())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def issue(self, folder: Path, kind: str, names: Sequence[str], common_name: str = "") -> Pair:
        """Make a certificate of a kind for DNS names and addresses, good for both sides of a connection."""
        folder.mkdir(parents=True, exist_ok=True)
        names = OTHER if kind == WRONG_NAME else names
        now = dt.datetime.now(dt.UTC)
        start, end = (now - dt.timedelta(days=9), now + dt.timedelta(days=9))
        if kind == EXPIRED:
            end = now - dt.timedelta(hours=1)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _NAMES
        if common_name:
            subject = x509.Name([*_NAMES, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = self._ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([_named(name) for name in names]), critical=False)
            # Python from 3.13 on refuses certificates without both.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._foreign if kind == FOREIGN else self._key, hashes.SHA256())
        )
        pair = Pair(folder / "made.crt", folder / "made.key")
        pair.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
