"""What a bundle puts where: its files with the secrets filled in, and its TLS material."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import files, store, tls
from hostkit.errors import HostError, during

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostkit.bundle import Bundle
    from hostkit.context import Context


@dataclass(frozen=True)
class Placement:
    """One file as it has to be."""

    path: str
    data: bytes
    mode: int
    user: str
    group: str

    def __repr__(self) -> str:
        """Leave the content out: it may hold secrets or a key."""
        return f"Placement({self.path})"

    def record(self) -> dict[str, Any]:
        """Return what the applied record keeps of it, so that drift can be told later."""
        return {
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "mode": f"{self.mode:04o}",
            "owner": self.user,
            "group": self.group,
        }


def placements(ctx: Context, bundle: Bundle, material: tls.Material | None = None) -> list[Placement]:
    """Return all that the bundle places, TLS first; HostError for a missing secret, key or certificate.

    ``material`` stands in for the certificates in the store (those about to be stored).
    """
    return tls_placements(ctx, bundle, material) + [
        Placement(
            path,
            store.fill(ctx, f.content, wanted_by=f"{path} of bundle {bundle.name}").encode(),
            f.mode,
            f.owner,
            f.group,
        )
        for path, f in bundle.files.items()
    ]


def tls_placements(ctx: Context, bundle: Bundle, material: tls.Material | None = None) -> list[Placement]:
    """Return the keys (0600, the user's), certificates and CA (0644) that the bundle places."""
    material = material or tls.Material.stored(ctx)
    found: dict[str, Placement] = {}
    for name, use in bundle.tls.items():
        key, cert = tls.stored_key(ctx, name), material.certificate(name, bundle.name)
        owner = (use.owner, use.group)
        found[use.key] = Placement(use.key, key.encode(), 0o600, *owner)
        found[use.cert] = Placement(use.cert, cert.encode(), 0o644, *owner)
        found[use.ca] = Placement(use.ca, material.ca.encode(), 0o644, *owner)
    return list(found.values())


def changes(ctx: Context, wanted: Iterable[Placement]) -> dict[str, str]:
    """Return which of them would be created or updated; reads only. See ``files.difference`` for refusals."""
    found = {}
    for item in wanted:
        try:
            owner = files.Owner.named(ctx, item.user, item.group)
        except HostError:  # made later, by the bundle's packages or its sysusers.d file
            owner = None
        change = files.difference(ctx, item.path, item.data, mode=item.mode, owner=owner)
        if change is not None:
            found[item.path] = change
    return found


def place(ctx: Context, wanted: Iterable[Placement]) -> dict[str, str]:
    """Write those that are not as wanted; return what was done to which path."""
    done = {}
    for item in wanted:
        with during(f"file {item.path}"):
            owner = files.Owner.named(ctx, item.user, item.group)
            change = files.replace(ctx, item.path, item.data, mode=item.mode, owner=owner)
        if change is not None:
            done[item.path] = change
    return done
