"""Certificates: the same bytes every time, accepted by two independent verifiers, names from the site only."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from keadb.pki import PkiError, ca_certificate, certificates, sign
from keadb.secrets import SECRETS_BY_NAME, generate
from keadb.site import load_site
from tests.unit.core.samples import ROOT, ha, put, site

CA_KEY = generate(SECRETS_BY_NAME["ca_key"])
PEM = serialization.Encoding.PEM
PKCS8, PLAIN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
SITE = site()
DB1 = SITE.hosts["lab-kea-db-01"]
AT = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """Return a request that asks for more than it may have."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("evil.example.com")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


CSR = _request(ec.generate_private_key(ec.SECP256R1()))


def _load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


@pytest.mark.parametrize("other", [{"TZ": "Pacific/Kiritimati"}, {"PYTHONHASHSEED": "7", "HOME": "/", "USER": "x"}])
def test_the_same_bytes_in_another_process(other: dict[str, str], tmp_path: Path) -> None:
    """A run without change makes no new certificate, whoever runs it, wherever and whenever."""
    (tmp_path / "key").write_text(CA_KEY)
    (tmp_path / "csr").write_text(CSR)
    code = (
        "import sys, pathlib, os; os.umask(0o077)\n"
        "from keadb.pki import *; from tests.unit.core.samples import site\n"
        "key, csr = (pathlib.Path(p).read_text() for p in sys.argv[1:])\n"
        "made = site(); host = made.hosts['lab-kea-db-01']\n"
        "print(ca_certificate(key, made), end='')\n"
        "for spec in certificates(made, host).values(): print(sign(key, made, csr, spec), end='')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **other}
    command = [sys.executable, "-c", code, str(tmp_path / "key"), str(tmp_path / "csr")]
    there = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    here = ca_certificate(CA_KEY, SITE) + "".join(
        sign(CA_KEY, SITE, CSR, s) for s in certificates(SITE, DB1).values()
    )
    assert there == here


def test_the_certificates_of_each_host() -> None:
    """Names and usages as components rely on them; the witness holds nothing of the databases."""
    witness = SITE.hosts["lab-kea-witness"]
    assert list(certificates(SITE, DB1)) == ["client", "etcd", "pooler", "postgres", "replicator", "rewinder"]
    assert list(certificates(SITE, witness)) == ["client", "etcd"]
    specs = {name: spec.as_dict() for name, spec in certificates(SITE, DB1).items()}
    full = "lab-kea-db-01.example.com"
    # Clients cannot tell a pooler from the server behind it; the server tells the pooler by its common name.
    assert specs.pop("pooler") == {**specs["postgres"], "common_name": "pooler"}
    assert specs == {
        "client": {"common_name": "", "dns": [full], "addresses": [], "usages": ["client"]},
        "etcd": {
            "common_name": full,
            "dns": [full, "lab-kea-db-01", "localhost"],
            "addresses": ["172.30.30.10", "127.0.0.1"],
            "usages": ["server", "client"],
        },
        "postgres": {
            "common_name": "",
            "dns": [
                full,
                "lab-kea-db-01",
                "kea-db-primary.lab.example.com",
                "kea-db-standby.lab.example.com",
                "localhost",
            ],
            "addresses": ["172.30.30.10", "172.30.30.13", "127.0.0.1", "::1"],
            "usages": ["server", "client"],
        },
        "replicator": {"common_name": "replicator", "dns": [], "addresses": [], "usages": ["client"]},
        "rewinder": {"common_name": "rewinder", "dns": [], "addresses": [], "usages": ["client"]},
    }


@pytest.mark.parametrize("name", ["client", "etcd", "pooler", "postgres", "replicator", "rewinder"])
def test_what_a_certificate_says(name: str) -> None:
    """Subject, names, usages and validity are the specification's, nothing of the request but the key."""
    spec = certificates(SITE, DB1)[name]
    made = _load(sign(CA_KEY, SITE, CSR, spec))
    common = made.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert [attribute.value for attribute in common] == [spec.common_name] * bool(spec.common_name)
    assert "evil" not in made.public_bytes(serialization.Encoding.DER).decode("latin-1")
    assert made.public_key() == x509.load_pem_x509_csr(CSR.encode()).public_key()
    assert made.not_valid_before_utc == dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    assert made.not_valid_after_utc - made.not_valid_before_utc == dt.timedelta(days=400)
    extensions = made.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH} | ({ExtendedKeyUsageOID.SERVER_AUTH} if spec.server else set())
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == wanted
    if spec.dns:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(names.get_values_for_type(x509.DNSName)) == spec.dns
        assert tuple(names.get_values_for_type(x509.IPAddress)) == spec.addresses
    else:
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_the_ca_says_whose_it_is_and_signs_no_other_ca() -> None:
    """The CA's subject names the site; it lasts ten years and has a path length of zero."""
    ca = _load(ca_certificate(CA_KEY, SITE))
    assert ca.subject == ca.issuer
    assert "CN=keadb lab CA" in ca.subject.rfc4514_string()
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert ca.not_valid_after_utc - ca.not_valid_before_utc == dt.timedelta(days=3650)


@pytest.mark.parametrize("name", ["client", "etcd", "pooler", "postgres", "replicator", "rewinder"])
def test_openssl_accepts_it(name: str, tmp_path: Path) -> None:
    """OpenSSL (PostgreSQL, Python on the hosts) accepts each certificate for each usage it claims, strictly."""
    spec = certificates(SITE, DB1)[name]
    (tmp_path / "ca.pem").write_text(ca_certificate(CA_KEY, SITE))
    (tmp_path / "leaf.pem").write_text(sign(CA_KEY, SITE, CSR, spec))

    def verify(*options: str) -> subprocess.CompletedProcess[str]:
        base = ["openssl", "verify", "-x509_strict", "-attime", str(int(AT.timestamp())), "-CAfile"]
        command = [*base, str(tmp_path / "ca.pem"), *options, str(tmp_path / "leaf.pem")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert verify("-purpose", "sslclient").returncode == 0
    assert (verify("-purpose", "sslserver").returncode == 0) is spec.server
    for dns in spec.dns:
        assert verify("-verify_hostname", dns).returncode == 0
    for address in spec.addresses:
        assert verify("-verify_ip", str(address)).returncode == 0
    if spec.dns:
        assert verify("-verify_hostname", "evil.example.com").returncode != 0
        assert verify("-verify_ip", "172.30.30.99").returncode != 0


def test_cryptography_accepts_the_server_certificates() -> None:
    """A second verifier, with the rules of the web's PKI."""
    store = Store([_load(ca_certificate(CA_KEY, SITE))])
    builder = PolicyBuilder().store(store).time(AT)
    leaf = _load(sign(CA_KEY, SITE, CSR, certificates(SITE, DB1)["postgres"]))
    for subject in (x509.DNSName(SITE.primary_name), x509.IPAddress(ip_address("172.30.30.13"))):
        builder.build_server_verifier(subject).verify(leaf, [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("evil.example.com")).verify(leaf, [])


def test_another_sites_ca_is_not_accepted(tmp_path: Path) -> None:
    """Each site has a CA of its own: one site's certificates open nothing at another."""
    other = generate(SECRETS_BY_NAME["ca_key"])
    (tmp_path / "ca.pem").write_text(ca_certificate(other, SITE))
    (tmp_path / "leaf.pem").write_text(sign(CA_KEY, SITE, CSR, certificates(SITE, DB1)["client"]))
    command = ["openssl", "verify", "-no_check_time", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_new_epoch_renews_and_only_that() -> None:
    """A bumped tls.epoch gives new serials and dates for leaves and leaves the CA alone."""
    later = load_site(put(ha(), "tls/epoch", "2026-11-20"), source="x")
    spec = certificates(SITE, DB1)["etcd"]
    old, new = (_load(sign(CA_KEY, one, CSR, spec)) for one in (SITE, later))
    assert old.serial_number != new.serial_number
    assert new.not_valid_before_utc == dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    assert ca_certificate(CA_KEY, SITE) == ca_certificate(CA_KEY, later)


def test_serials_differ_and_fit() -> None:
    """Serial numbers are positive, at most 20 octets, and differ between names, hosts and keys."""
    csr = _request(ec.generate_private_key(ec.SECP256R1()))
    serials = [
        _load(sign(CA_KEY, SITE, request, spec)).serial_number
        for request in (CSR, csr)
        for host in SITE.hosts.values()
        for spec in certificates(SITE, host).values()
    ]
    assert len(set(serials)) == len(serials) == 28
    assert all(0 < serial < 2**159 for serial in serials)


def test_changed_names_change_the_serial() -> None:
    """A new VIP or a new CA key makes another certificate, which must not have the old one's serial."""
    moved = load_site(put(ha(), "network/vip", "172.30.30.14"), source="x")
    other = generate(SECRETS_BY_NAME["ca_key"])
    first, second = (certificates(one, one.hosts["lab-kea-db-01"])["postgres"] for one in (SITE, moved))
    made = [sign(CA_KEY, SITE, CSR, first), sign(CA_KEY, moved, CSR, second), sign(other, SITE, CSR, first)]
    assert len({_load(pem).serial_number for pem in made}) == 3


def test_bad_requests_and_keys_are_refused_clearly() -> None:
    """Each error names host and certificate, or the secret, and holds no key material."""
    spec = certificates(SITE, DB1)["etcd"]
    where = "certificate request etcd of lab-kea-db-01: "
    with pytest.raises(PkiError, match=where + "cannot be read"):
        sign(CA_KEY, SITE, "nonsense", spec)
    with pytest.raises(PkiError, match=where + "its key is not ECDSA P-256"):
        sign(CA_KEY, SITE, _request(rsa.generate_private_key(65537, 2048)), spec)
    with pytest.raises(PkiError, match=where + "its key is not ECDSA P-256"):
        sign(CA_KEY, SITE, _request(ec.generate_private_key(ec.SECP384R1())), spec)
    der = bytearray(x509.load_pem_x509_csr(CSR.encode()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"evil")] ^= 1
    forged = subprocess.run(["openssl", "req", "-inform", "DER"], input=bytes(der), capture_output=True, check=True)
    with pytest.raises(PkiError, match=where + "its signature does not match"):
        sign(CA_KEY, SITE, forged.stdout.decode(), spec)
    p384 = ec.generate_private_key(ec.SECP384R1()).private_bytes(PEM, PKCS8, PLAIN).decode()
    for bad in ("Hunter2", "", p384):
        with pytest.raises(PkiError, match="secret_ca_key") as caught:
            ca_certificate(bad, SITE)
        assert "Hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
