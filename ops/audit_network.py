"""The audit's items about the firewall. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from keadb.site import Host, Site
from ops.audit_model import OWN, Check, Facts, Group, Item, equal, nothing

HOOKS = ("forward", "input", "output")
_CIS = "CIS 5, address"


def _policies(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part("firewall")["policies"]
    return [equal(f"what {hook} does with what is not allowed", "drop", found.get(hook, "accept")) for hook in HOOKS]


def _as_declared(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [nothing("not as declared", facts.part("firewall")["differs"])]


def _at_boot(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("firewall")
    return [
        equal("keadb-firewall.service", "enabled", said["at_boot"]),
        equal("rules are confirmed", expected=True, actual=not said["unconfirmed"]),
    ]


FIREWALL = Group(
    name="Firewall",
    items=(
        Item(id="firewall-default", source=_CIS, title="What no rule allows is dropped, both ways", look=_policies),
        Item(id="firewall-as-declared", source=OWN, title="The declared rules are in force", look=_as_declared),
        Item(id="firewall-at-boot", source=OWN, title="The host starts with confirmed rules", look=_at_boot),
    ),
)
