"""Keys and passphrase of a lab, made once and kept in its state folder, readable by root only."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab.container import public

if TYPE_CHECKING:
    from pathlib import Path

    from lab.model import LabHost, LabSpec


def ensure(spec: LabSpec) -> None:
    """Make what is missing: the deploy key, a host key for each host, the passphrase of the stack."""
    spec.ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
    _key(spec.deploy_key, f"keadb-deploy@{spec.name}")
    for host in spec.hosts:
        _key(spec.host_key(host), host.name)
    passphrase = spec.folder / "passphrase"
    if not passphrase.exists():
        _write(passphrase, secrets.token_urlsafe(32) + "\n", 0o600)


def renew(spec: LabSpec, host: LabHost) -> None:
    """Make a new host key in place of the old one, as an installation does."""
    spec.host_key(host).unlink(missing_ok=True)
    _key(spec.host_key(host), host.name)


def public_line(key: Path) -> str:
    """Return type and base64 of a public key, without its comment."""
    return " ".join(public(key).read_text(encoding="ascii").split()[:2])


def _key(path: Path, comment: str) -> None:
    if path.exists() and public(path).exists():
        return
    key = ed25519.Ed25519PrivateKey.generate()
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(public(path), f"{line.decode()} {comment}\n", 0o644)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    _write(path, private.decode(), 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """Write whole or not at all, never readable by others in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as handle:
        handle.write(text)
    temporary.replace(path)
