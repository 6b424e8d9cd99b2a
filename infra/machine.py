"""What the rest of the program knows of a machine: how to reach it, and what must exist before it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A host that answers SSH, or will once ``depends_on`` exists.

    ``host_key`` is one authorized_keys-style line and is the only key that is accepted.
    ``dial_retries`` is how often a refused or unanswered dial is repeated before the host counts as
    unreachable; ten retries are about 11 s of refusals, or a minute of silence.
    """

    name: str
    address: str
    port: int
    user: str
    host_key: str
    dial_retries: int = 10
    depends_on: tuple[pulumi.Resource, ...] = field(default=())
