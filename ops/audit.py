"""``audit``: whether the running hosts are as a list of security items says, with the reason for each that is not.

The hosts only tell facts (``hostkit.audit``), asked all at once over SSH as the site's deploy identity; judging them
is pure and done here. Nothing secret is in an answer. The list is derived from the CIS PostgreSQL 15 benchmark, with
items of our own for what stands around the database; docs/hardening.md has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from rich.console import Console
from rich.text import Text

from keadb.site import Host, Site
from ops import audit_access, audit_around, audit_machine, audit_network, audit_settings, sites
from ops.audit_model import Check, Facts, Group, Item, Unknown
from ops.drift import Reply, ask
from ops.exits import Exit
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack

SECONDS = 90.0
"""Limit for one host's facts: systemd-analyze takes its time on a busy one."""
FORMAT = 1

GROUPS: tuple[Group, ...] = (
    audit_around.VERSIONS,
    audit_settings.DURABILITY,
    audit_settings.LOGS,
    audit_settings.SETTINGS,
    audit_access.RULES,
    audit_access.ROLES,
    audit_around.AROUND,
    audit_machine.FILES,
    audit_machine.ACCOUNTS,
    audit_machine.SERVICES,
    audit_network.FIREWALL,
    audit_machine.UPKEEP,
)
"""Everything that is looked at, in this order."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One item on one host. ``unknown`` is why it could not be judged, which counts as failed."""

    host: str
    group: str
    item: Item
    checks: tuple[Check, ...] = ()
    unknown: str = ""

    @property
    def passed(self) -> bool:
        """Say whether everything that was looked at is good."""
        return not self.unknown and all(check.good for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Return what is not good, in words."""
        if self.unknown:
            return [f"could not be looked at: {self.unknown}"]
        return [str(check) for check in self.checks if not check.good]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        return {
            "host": self.host,
            "id": self.item.id,
            "group": self.group,
            "source": self.item.source,
            "title": self.item.title,
            "passed": self.passed,
            "reasons": self.reasons,
            "checks": [vars(check) for check in self.checks],
        }


@dataclass(kw_only=True)
class Report:
    """What all hosts said, judged."""

    stack: str
    results: list[Result] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Result]:
        """Return the items that did not pass."""
        return [result for result in self.results if not result.passed]

    @property
    def exit_code(self) -> Exit:
        """Unknown comes before found, as with ``drift``."""
        if self.unreachable:
            return Exit.UNREACHABLE
        return Exit.CHANGES if self.failed else Exit.OK

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        return {
            "stack": self.stack,
            "passed": self.exit_code is Exit.OK,
            "items": [result.as_dict() for result in self.results],
            "unreachable": self.unreachable,
        }


def look(stack: Stack) -> Report:
    """Ask every host of the stack and judge; CommandError only for what is wrong before any host is asked."""
    site = sites.load(stack)
    replies = asyncio.run(_ask_all(site, secret_values(stack)[DEPLOY_KEY]))
    return report(stack.name, site, replies)


async def _ask_all(site: Site, deploy_key: str) -> dict[str, Reply]:
    identity = asyncssh.import_private_key(deploy_key)

    async def one(host: Host) -> Reply:
        return await ask(host, identity, "audit", json.dumps({"deploy_user": host.ssh_user}), seconds=SECONDS)

    hosts = list(site.hosts.values())
    return dict(zip((host.name for host in hosts), await asyncio.gather(*map(one, hosts)), strict=True))


def report(stack: str, site: Site, replies: Mapping[str, Reply]) -> Report:
    """Judge the hosts' answers. Pure."""
    made = Report(stack=stack)
    for name, reply in replies.items():
        if reply.document is None:
            made.unreachable[name] = told(reply.error)
        elif reply.document.get("format") != FORMAT:
            made.unreachable[name] = "its applier is of another version than this checkout: run 'keadb up' first"
        else:
            made.results += evaluate(site, site.hosts[name], Facts(document=reply.document))
    return made


def told(error: str) -> str:
    """Return why a host gave no facts, in words for people who do not know sudo's."""
    if "verb 'audit'" in error or "a password is required" in error:
        return "it has an older applier, which does not know audit: run 'keadb up' first"
    return error


def evaluate(site: Site, host: Host, facts: Facts) -> Iterator[Result]:
    """Judge every item that is for this host. Pure."""
    for group in GROUPS:
        for item in group.items:
            if item.on(host):
                yield _judged(site, host, facts, group.name, item)


def _judged(site: Site, host: Host, facts: Facts, group: str, item: Item) -> Result:
    try:
        checks = tuple(item.look(facts, site, host))
    except Unknown as e:
        return Result(host=host.name, group=group, item=item, unknown=str(e))
    except (KeyError, TypeError, ValueError) as e:
        # Facts of another shape than ours: an applier that is older or newer, or a host that tells stories.
        return Result(host=host.name, group=group, item=item, unknown=f"its facts have another form ({e!r})")
    return Result(host=host.name, group=group, item=item, checks=checks)


def show(made: Report, console: Console) -> None:
    """Print one line an item, and below those that failed why, on which host."""
    by_item: dict[str, list[Result]] = {}
    for result in made.results:
        by_item.setdefault(result.item.id, []).append(result)
    for group in GROUPS:
        seen = [item for item in group.items if item.id in by_item]
        if seen:
            console.print(Text(group.name, style="bold"))
        for item in seen:
            _show_item(item, by_item[item.id], console)
    for host, error in made.unreachable.items():
        console.print(Text(f"! {host}: {error}", style="red"), soft_wrap=True)
    failed = sorted({result.item.id for result in made.failed})
    verdict = {
        Exit.OK: f"all {len(by_item)} items pass",
        Exit.CHANGES: f"{len(failed)} of {len(by_item)} items fail: {', '.join(failed)}",
        Exit.UNREACHABLE: f"{len(failed)} of {len(by_item)} items fail, but not every host answered",
    }[made.exit_code]
    console.print(f"stack {made.stack}: {verdict}", markup=False, soft_wrap=True)


def _show_item(item: Item, results: list[Result], console: Console) -> None:
    good = all(result.passed for result in results)
    mark = Text("pass", style="green") if good else Text("FAIL", style="bold red")
    console.print(Text.assemble("  ", mark, f"  {item.id:<26}{item.title}  [{item.source}]"), soft_wrap=True)
    for result in results:
        for reason in result.reasons:
            console.print(Text(f"        {result.host}: {reason}", style="red"), soft_wrap=True)
