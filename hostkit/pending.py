"""What still has to happen after files changed, kept on disk *before* they change.

A run that is cut between writing a file and restarting what reads it leaves its plan here, so that the next
run restarts although it finds the file as wanted. It also says what the run was about to make of which path, so
that a later run knows its own half-done work from somebody's edit, and which units it was about to manage.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hostkit.errors import HostError
from hostkit.files import Owner, make_private, remove, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hostkit.context import Context

FOLDER = "/var/lib/keadb/pending"


@dataclass
class Pending:
    """The plan of one bundle: definition files to run, whether to reload the manager, units to act on."""

    bundle: str
    sysusers: set[str] = field(default_factory=set)
    tmpfiles: set[str] = field(default_factory=set)
    daemon_reload: bool = False
    restart: set[str] = field(default_factory=set)
    reload: set[str] = field(default_factory=set)
    about: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """By path, the states (as ``applied`` records them) that runs since the last good one meant to leave it in."""
    units: dict[str, str] = field(default_factory=dict)
    """Units that these runs meant to manage, and who starts them."""

    @classmethod
    def load(cls, ctx: Context, bundle: str) -> Pending:
        """Return what an earlier run left; an empty plan when it ended well."""
        path = f"{FOLDER}/{bundle}.json"
        try:
            left = json.loads(ctx.path(path).read_text(encoding="utf-8"))
            return cls(
                bundle,
                sysusers=set(left["sysusers"]),
                tmpfiles=set(left["tmpfiles"]),
                daemon_reload=bool(left["daemon_reload"]),
                restart=set(left["restart"]),
                reload=set(left["reload"]),
                # An older applier's plan has none.
                about={str(path): list(states) for path, states in left.get("about", {}).items()},
                units={str(name): str(start) for name, start in left.get("units", {}).items()},
            )
        except FileNotFoundError:
            return cls(bundle)
        except (ValueError, KeyError, TypeError) as e:
            why = type(e).__name__
            msg = f"{path} is not readable ({why}); remove it and restart the bundle's units by hand"
            raise HostError(msg) from None

    @property
    def empty(self) -> bool:
        """Whether nothing is left to do, and nothing to know of a run that did not end."""
        acts = self.sysusers or self.tmpfiles or self.daemon_reload or self.restart or self.reload
        return not (acts or self.about or self.units)

    def expect(self, states: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Add states that this run is about to leave paths in."""
        for path, state in states:
            known = self.about.setdefault(path, [])
            if state not in known:
                known.append(state)

    def ended(self, ctx: Context) -> None:
        """Note that the run came to its good end: the record says now what it did."""
        self.about.clear()
        self.units.clear()
        self.save(ctx)

    def save(self, ctx: Context) -> None:
        """Write the plan, or remove it when it is empty; does not touch a file that says the same."""
        path = f"{FOLDER}/{self.bundle}.json"
        if self.empty:
            remove(ctx, path)
            return
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in asdict(self).items()}
        make_private(ctx, FOLDER)
        text = json.dumps(plain, indent=1, sort_keys=True) + "\n"
        replace(ctx, path, text.encode(), mode=0o600, owner=Owner.root(ctx))


def left(ctx: Context) -> Iterator[str]:
    """Yield the names of bundles whose last run did not come to its end."""
    yield from sorted(p.stem for p in ctx.path(FOLDER).glob("*.json"))
