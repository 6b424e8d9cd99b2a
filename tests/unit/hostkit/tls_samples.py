"""A certificate authority for tests, on the same library that the program signs with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_START = datetime(2030, 1, 1, tzinfo=UTC)  # in the future on purpose: a host's clock may be wrong at first


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The key as openssl writes it."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@dataclass
class Authority:
    """A CA that signs any public key."""

    name: str = "test ca"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def _signed(self, subject: str, public: ec.EllipticCurvePublicKey, serial: int, *, ca: bool) -> str:
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(_START)
            .not_valid_after(_START + timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def ca(self) -> str:
        """The CA's own certificate."""
        return self._signed(self.name, self.key.public_key(), 1, ca=True)

    def sign_request(self, request: str, serial: int = 2) -> str:
        """The certificate for a request as the verb ``keys`` prints it."""
        public = x509.load_pem_x509_csr(request.encode()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return self._signed("leaf", public, serial, ca=False)

    def sign_key(self, key: ec.EllipticCurvePrivateKey, serial: int = 2) -> str:
        """The certificate for a key."""
        return self._signed("leaf", key.public_key(), serial, ca=False)
