"""Logins that a password opens come in pairs, so that one can be rotated while the other is in use.

Names only: which login of a pair is in use says the site file (``logins``), passwords are secrets of the stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keadb.site_model import Logins

LETTERS = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair of logins with the same rights.

    ``name`` is what ``keadb secrets rotate`` calls it, ``key`` its key under ``logins``, ``user`` what both logins'
    names begin with. ``clients`` says whether others than keadb and Patroni log in with it: then the login that was
    in use stays open (``logins.keep``) until somebody says that they have moved.
    """

    name: str
    key: str
    user: str
    clients: bool

    def login(self, letter: str) -> str:
        """Return the name of one of the two logins."""
        return f"{self.user}_{letter}"

    def secret(self, letter: str) -> str:
        """Return the name of the secret that holds its password."""
        return f"{self.name}_{letter}_password"

    def active(self, logins: Logins) -> str:
        """Return the letter of the login in use."""
        return str(getattr(logins, self.key))

    def spare(self, logins: Logins) -> str:
        """Return the letter of the other one."""
        return LETTERS[1 - LETTERS.index(self.active(logins))]

    def open(self, logins: Logins) -> tuple[str, ...]:
        """Return the letters of the logins that are open: the one in use, and one that is kept."""
        active = self.active(logins)
        return tuple(letter for letter in LETTERS if letter == active or self.login(letter) in logins.keep)


KEA_OWNER = Pair(name="kea_owner", key="owner", user="kea_owner", clients=True)
KEA_READ = Pair(name="kea_read", key="read", user="kea_read", clients=True)
ETCD_PATRONI = Pair(name="etcd_patroni", key="etcd", user="patroni", clients=False)

PAIRS = (KEA_OWNER, KEA_READ, ETCD_PATRONI)
PAIRS_BY_NAME = {pair.name: pair for pair in PAIRS}
KEPT = tuple(pair.login(letter) for pair in PAIRS if pair.clients for letter in LETTERS)
"""Logins that ``logins.keep`` may name."""
