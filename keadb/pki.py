"""The site's certificate authority: signs what hosts ask for, the same bytes every time.

Serial and validity come from the site file's dates and the public key, the signature uses a deterministic nonce: a
run without change makes no new certificate. Keys are ECDSA P-256 (no Ed25519: channel binding of SCRAM needs a
digest). The subject and the names come from the site, never from the request. Nothing here stores a key, revokes, or
looks at the clock (see `keadb.site_dates`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keadb.site_rules import CA_DAYS, LEAF_DAYS

if TYPE_CHECKING:
    from keadb.site import Host, Site

_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_SERIAL_BITS = 159


class PkiError(Exception):
    """A key or a request cannot be used; the message names it and never holds key material."""


@dataclass(frozen=True, kw_only=True)
class CertificateSpec:
    """What one certificate of one host says. ``server`` and ``client`` are its extended key usages.

    An empty ``common_name`` stands for none: the names are in ``dns`` and ``addresses``.
    """

    name: str
    host: str
    common_name: str
    dns: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    server: bool = False
    client: bool = True

    def as_dict(self) -> dict[str, object]:
        """Return the specification as plain data, for reviews (``keadb render``)."""
        return {
            "common_name": self.common_name,
            "dns": list(self.dns),
            "addresses": [str(address) for address in self.addresses],
            "usages": [usage for usage in ("server", "client") if getattr(self, usage)],
        }


def certificates(site: Site, host: Host) -> Mapping[str, CertificateSpec]:
    """Return the certificates of ``host`` by name: client, etcd, pooler, postgres, replicator, rewinder (sorted)."""
    full = site.fqdn(host)
    # No common name in what etcd's clients carry: with authentication on, its gateway turns away any that has one.
    specs = [CertificateSpec(name="client", host=host.name, common_name="", dns=(full,))]
    if "etcd" in host.roles:
        specs.append(
            CertificateSpec(
                name="etcd",
                host=host.name,
                common_name=full,
                dns=(full, host.name, "localhost"),
                addresses=(host.address, _LOOPBACK[0]),
                server=True,
            )
        )
    if "database" in host.roles:
        names = (full, host.name, site.primary_name, site.standby_name, "localhost")
        addresses = (host.address, site.network.vip, *_LOOPBACK)
        # The pooler shows the same names as the server behind it; toward that server its common name is its login.
        specs += [
            CertificateSpec(name=name, host=host.name, common_name=login, dns=names, addresses=addresses, server=True)
            for name, login in (("postgres", ""), ("pooler", "pooler"))
        ]
        specs += [CertificateSpec(name=role, host=host.name, common_name=role) for role in ("replicator", "rewinder")]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}


def ca_certificate(ca_key_pem: str, site: Site) -> str:
    """Return the self-signed CA certificate of ``site`` as PEM. Raises PkiError for an unusable key."""
    key = _ca_key(ca_key_pem)
    public = key.public_key()
    subject = _ca_subject(site)
    builder = (
        _dated(site.tls.ca_epoch, CA_DAYS)
        .serial_number(_serial(public, site.name, "ca", str(site.tls.ca_epoch)))
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return _signed(builder, key)


def sign(ca_key_pem: str, site: Site, csr_pem: str, spec: CertificateSpec) -> str:
    """Return the certificate for the key of ``csr_pem`` as PEM; only the key is taken from the request.

    Raises PkiError when the request does not parse, its signature does not match its key (whoever sent it does not
    hold the key), or the key is not P-256.
    """
    key = _ca_key(ca_key_pem)
    public = _requested_key(csr_pem, spec)
    usages = [(spec.server, ExtendedKeyUsageOID.SERVER_AUTH), (spec.client, ExtendedKeyUsageOID.CLIENT_AUTH)]
    builder = (
        _dated(site.tls.epoch, LEAF_DAYS)
        .serial_number(_serial(public, _spki(key.public_key()).hex(), site.name, str(site.tls.epoch), repr(spec)))
        .subject_name(_subject(site, spec.common_name))
        .issuer_name(_ca_subject(site))
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([oid for used, oid in usages if used]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.dns]
    names += [x509.IPAddress(address) for address in spec.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, key)


def _ca_key(pem: str) -> ec.EllipticCurvePrivateKey:
    problem = (
        "the site's CA key (secret_ca_key) is not usable; allowed: an ECDSA P-256 private key as PEM, no passphrase"
    )
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PkiError(problem) from None  # the parser's own message may quote the input
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PkiError(problem)
    return key


def _requested_key(csr_pem: str, spec: CertificateSpec) -> ec.EllipticCurvePublicKey:
    which = f"certificate request {spec.name} of {spec.host}"
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"{which}: cannot be read ({error}); allowed: a PKCS #10 request as PEM"
        raise PkiError(message) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        message = f"{which}: its key is not ECDSA P-256; remove the key on the host and run again"
        raise PkiError(message)
    if not valid:
        message = f"{which}: its signature does not match its key; remove both on the host and run again"
        raise PkiError(message)
    return key


def _subject(site: Site, common_name: str) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "keadb"), (NameOID.ORGANIZATIONAL_UNIT_NAME, site.name)]
    if common_name:
        parts.append((NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _ca_subject(site: Site) -> x509.Name:
    return _subject(site, f"keadb {site.name} CA")


def _serial(public: ec.EllipticCurvePublicKey, *about: str) -> int:
    """Return a positive serial number that changes whenever anything in the certificate does.

    Two certificates of one issuer must never share a serial, also when only their names differ.
    """
    digest = hashlib.sha256("\0".join(about).encode() + b"\0" + _spki(public)).digest()
    return int.from_bytes(digest) >> (256 - _SERIAL_BITS) or 1


def _spki(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _dated(epoch: date, days: int) -> x509.CertificateBuilder:
    start = datetime(epoch.year, epoch.month, epoch.day, tzinfo=UTC)
    return x509.CertificateBuilder().not_valid_before(start).not_valid_after(start + timedelta(days=days))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    made = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return made.public_bytes(serialization.Encoding.PEM).decode()
