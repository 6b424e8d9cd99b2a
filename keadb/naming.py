"""Names of the engine's resources: one scheme, because a resource that changes its name is made anew.

Names are made of host or site and service only, never of addresses, versions or positions in a list.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
PACKAGE = "keadb"


def resource(owner: str, *words: str) -> str:
    """Return the name of a resource of a host (or, for cluster-level steps, of the site): ``<owner>-<words>``.

    >>> resource("us1-kea-db-01", "etcd")
    'us1-kea-db-01-etcd'

    Raises ValueError for a word that is not lower-case letters, digits and dashes.
    """
    for word in (owner, *words):
        if not _WORD.fullmatch(word):
            message = f"resource name part {word!r}: only lower-case letters, digits and dashes are allowed"
            raise ValueError(message)
    return "-".join((owner, *words))


def type_token(area: str, kind: str) -> str:
    """Return the type of a component: ``keadb:<area>:<Class>``, for example ``keadb:components:EtcdCluster``."""
    if not _WORD.fullmatch(area) or not re.fullmatch(r"[A-Z][A-Za-z0-9]*", kind):
        message = f"type token of {area!r} and {kind!r}: allowed are a folder's name and a class name"
        raise ValueError(message)
    return f"{PACKAGE}:{area}:{kind}"
