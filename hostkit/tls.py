"""The host's own keys and the certificates that the site's CA signed for them. A key never leaves the host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostkit import files
from hostkit.bundle import NAME
from hostkit.errors import BadInput, CommandFailed, HostError, during

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostkit.context import Context

FOLDER = "/var/lib/keadb/tls"
CA = "/etc/keadb/tls/ca.crt"
"""The CA for everybody on the host; bundles may place copies of their own."""
_LIMIT = 30
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?\Z")


@dataclass(frozen=True)
class Material:
    """The CA and the certificates of this host by name."""

    ca: str
    certificates: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stored(cls, ctx: Context) -> Material:
        """Return what the store holds; an empty CA when nothing was stored yet."""
        folder = ctx.path(FOLDER)
        texts = {p.stem: p.read_text(encoding="ascii") for p in sorted(folder.glob("*.crt"))}
        return cls(texts.pop("ca", ""), texts)

    def certificate(self, name: str, bundle: str) -> str:
        """Return one certificate; HostError when the program has not sent it."""
        if name not in self.certificates or not self.ca:
            msg = f"certificate {name!r}, wanted by bundle {bundle}, is not on this host; send certificates first"
            raise HostError(msg)
        return self.certificates[name]


def stored_key(ctx: Context, name: str) -> str:
    """Return a private key of this host; HostError when it was never made."""
    try:
        return ctx.path(f"{FOLDER}/{name}.key").read_text(encoding="ascii")
    except FileNotFoundError:
        msg = f"key {name!r} was never made on this host; run the verb 'keys' first"
        raise HostError(msg) from None


def requests(ctx: Context, names: Sequence[object]) -> dict[str, str]:
    """Make missing keys (P-256) and certificate requests; return the requests as PEM.

    What exists and fits stays: a second run returns the same bytes. An existing key is never made anew.
    """
    wanted = [_checked(name) for name in names]
    files.make_private(ctx, FOLDER)
    return {name: _request(ctx, name) for name in wanted}


def _checked(name: object) -> str:
    if isinstance(name, str) and NAME.match(name) and name != "ca":
        return name
    msg = f"certificate name {name!r}: allowed are lower-case letters, digits and -, and not 'ca'"
    raise BadInput(msg)


def _request(ctx: Context, name: str) -> str:
    root = files.Owner.root(ctx)
    key, csr = f"{FOLDER}/{name}.key", f"{FOLDER}/{name}.csr"
    with during(f"key {name}"):
        if not ctx.path(key).exists():
            made = _openssl(ctx, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
            files.replace(ctx, key, made.encode(), mode=0o600, owner=root)
        public = _openssl(ctx, "pkey", "-in", str(ctx.path(key)), "-pubout")
        if not ctx.path(csr).exists() or _public(ctx, "req", csr) != public:
            made = _openssl(ctx, "req", "-new", "-key", str(ctx.path(key)), "-sha256", "-subj", f"/CN={name}")
            files.replace(ctx, csr, made.encode(), mode=0o600, owner=root)
        return ctx.path(csr).read_text(encoding="ascii")


def validated(ctx: Context, ca: object, given: Mapping[str, object]) -> Material:
    """Check the CA and certificates against each other and against the keys here; BadInput names the bad one.

    Validity in time is not checked: a host whose clock is not set yet must be able to start.
    """
    pem_ca = _pem(ca, "ca")
    texts = {_checked(name): _pem(text, f"certificate {name!r}") for name, text in given.items()}
    authority = f"{FOLDER}/ca.new"
    files.make_private(ctx, FOLDER)
    files.replace(ctx, authority, pem_ca.encode(), mode=0o600, owner=files.Owner.root(ctx))
    try:
        for name, text in texts.items():
            stored_key(ctx, name)
            key = _openssl(ctx, "pkey", "-in", str(ctx.path(f"{FOLDER}/{name}.key")), "-pubout")
            try:
                public = _openssl(ctx, "x509", "-noout", "-pubkey", text=text)
                verify = ["verify", "-no_check_time", "-CAfile", str(ctx.path(authority)), "/dev/stdin"]
                _openssl(ctx, *verify, text=text)
            except CommandFailed as e:
                msg = f"certificate {name!r} is not one that the given CA signed: {e}"
                raise BadInput(msg) from None
            if public != key:
                msg = f"certificate {name!r} does not belong to the key on this host; sign this host's request"
                raise BadInput(msg)
    finally:
        files.remove(ctx, authority)
    return Material(pem_ca, texts)


def store(ctx: Context, material: Material) -> list[str]:
    """Store the material and the CA for everybody; return the names that changed ("ca" among them)."""
    root = files.Owner.root(ctx)
    changed = []
    for name, text in sorted({**material.certificates, "ca": material.ca}.items()):
        if files.replace(ctx, f"{FOLDER}/{name}.crt", text.encode(), mode=0o600, owner=root):
            changed.append(name)
    if files.replace(ctx, CA, material.ca.encode(), mode=0o644, owner=root) and "ca" not in changed:
        changed.append("ca")
    return changed


def _pem(text: object, what: str) -> str:
    if isinstance(text, str) and _PEM.match(text):
        return text
    msg = f"{what}: given is not one PEM certificate"
    raise BadInput(msg)


def _public(ctx: Context, kind: str, path: str) -> str:
    try:
        return _openssl(ctx, kind, "-in", str(ctx.path(path)), "-noout", "-pubkey")
    except CommandFailed:
        return ""


def _openssl(ctx: Context, *argv: str, text: str | None = None) -> str:
    return ctx.system.run(["openssl", *argv], timeout=_LIMIT, input=text).stdout
