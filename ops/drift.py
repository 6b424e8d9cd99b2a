"""``drift``: what on which host is not as it was last applied; accepting it, putting it back, foreseeing refusals.

The hosts compare and decide (``hostkit.check``, ``hostkit.edits``); here they are only asked, all at once, over SSH
as the site's deploy identity, and their answers shown. Nothing secret is in an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from rich.console import Console
from rich.text import Text

from components.catalog import bundles
from keadb.bundle import applier_command
from keadb.site import Host, Site
from ops import sites
from ops.drift_command import named
from ops.exits import CommandError, Exit
from ops.messages import CONTROL
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack
from ops.status import run_on, why

STEPS = frozenset(["step", "mask", "setting", "login", "role", "program", "rules"])
"""Kinds that are put back by applying their bundle again."""
CHECK_SECONDS = 90.0
"""A busy host asks systemd and dpkg, and runs the guards of its bundles' steps."""
CHANGE_SECONDS = 3900.0
"""Longer than the applier's own limit: it restarts units."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One difference on one host.

    ``kind``: file, tls, unit, package, mask, step, program, rules, member, setting or role.
    """

    host: str
    bundle: str
    kind: str
    name: str
    what: str
    accepted: bool = False
    diff: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Report:
    """What all hosts said at one moment."""

    stack: str
    items: list[Item] = field(default_factory=list)
    unfinished: dict[str, list[str]] = field(default_factory=dict)
    """Bundles by host whose last run did not come to its end: 'keadb up' goes on with them."""
    unreachable: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> Exit:
        """Unknown comes before found: a silent host may have more."""
        if self.unreachable:
            return Exit.UNREACHABLE
        found = self.unfinished or any(not item.accepted for item in self.items)
        return Exit.CHANGES if found else Exit.OK

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        return {
            "stack": self.stack,
            "in_sync": self.exit_code is Exit.OK,
            "drift": [{**vars(item), "is": item.what, "diff": list(item.diff)} for item in self.items],
            "unfinished": self.unfinished,
            "unreachable": self.unreachable,
        }


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a verb on one host answered, or why there is no answer."""

    document: Mapping[str, Any] | None = None
    error: str = ""
    unreachable: bool = False


def look(stack: Stack) -> Report:
    """Ask every host of the stack what drifted; CommandError only for what is wrong before any host is asked."""
    site = sites.load(stack)
    key = secret_values(stack)[DEPLOY_KEY]
    replies = asyncio.run(_ask(list(site.hosts.values()), key, "check"))
    return report(stack.name, replies)


def report(stack: str, replies: Mapping[str, Reply]) -> Report:
    """Put the hosts' answers together. Pure."""
    made = Report(stack=stack)
    for host, reply in replies.items():
        if reply.document is None:
            made.unreachable[host] = reply.error
            continue
        if reply.document["unfinished"]:
            made.unfinished[host] = list(reply.document["unfinished"])
        made.items += [
            Item(
                host=host,
                bundle=item["bundle"],
                kind=item["kind"],
                name=item["name"],
                what=item["is"],
                accepted=item["accepted"],
                diff=tuple(item["diff"]),
            )
            for item in reply.document["drift"]
        ]
    return made


def targets(site: Site, given: Iterable[str]) -> dict[str, list[str]]:
    """Return what is named on which host, from ``HOST:NAME``; CommandError names each that is not of that form."""
    found: dict[str, list[str]] = {}
    for text in given:
        host, _, name = text.partition(":")
        if host not in site.hosts or not name:
            msg = f"given {text!r}, allowed: HOST:NAME as 'keadb drift' shows it, HOST one of {', '.join(site.hosts)}"
            raise CommandError(msg, Exit.USAGE)
        found.setdefault(host, []).append(name)
    return found


def change(stack: Stack, verb: str, given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Have hosts ``accept`` or ``restore`` what is named; return their answers by host.

    CommandError with every reason when a host refuses or cannot be asked; what the others did is in it.
    """
    site = sites.load(stack)
    wanted = targets(site, given)
    key = secret_values(stack)[DEPLOY_KEY]
    requests = {host: json.dumps({"names": names}) for host, names in wanted.items()}
    hosts = [site.hosts[name] for name in wanted]
    replies = asyncio.run(_ask(hosts, key, verb, requests, seconds=CHANGE_SECONDS))
    errors = [
        f"{host}: {verb}: {named(reply.error, stack.name)}"
        for host, reply in replies.items()
        if reply.document is None
    ]
    if errors:
        done = [line for host, r in replies.items() if r.document for line in told(host, r.document)]
        unreachable = any(reply.unreachable for reply in replies.values())
        raise CommandError("\n".join([*done, *errors]), Exit.UNREACHABLE if unreachable else Exit.FAILED)
    return {host: dict(reply.document or {}) for host, reply in replies.items()}


def told(host: str, answer: Mapping[str, Any]) -> list[str]:
    """Return what a host did, line by line."""
    lines = [f"{host}: {path}: accepted, the next run may write over it" for path in answer.get("accepted", ())]
    lines += [f"{host}: {path}: put back" for path in answer.get("files", {})]
    lines += [f"{host}: {unit}: {did}" for unit, did in answer.get("units", {}).items()]
    lines += [f"{host}: package {package}: put back" for package in answer.get("packages", ())]
    lines += [
        f"{host}: {unit} is not restarted here; it reads the file when it is next"
        for unit in answer.get("waiting", ())
    ]
    lines += [f"{host}: {step}: {became}" for step, became in answer.get("steps", {}).items()]
    return lines or [f"{host}: it is as it was applied; nothing to do"]


def foresee(stack: Stack, site: Site, changing: Iterable[tuple[str | None, str]]) -> list[str]:
    """Return warnings of what hosts would refuse, for the (host, step) pairs that ``up`` would run again.

    A host that has no applier yet, or an older one, cannot foresee; one that does not answer is a warning too.
    """
    declared = bundles(site)
    requests: dict[str, dict[str, Any]] = {}
    for host, step in changing:
        if host is None:
            continue
        request = requests.setdefault(host, {"bundles": []})
        request["bundles"] += [b.as_dict() for b in declared[host] if b.name == step]
        if step == "prune":
            request["prune"] = {"host": host, "bundles": sorted(b.name for b in declared[host])}
    requests = {host: request for host, request in requests.items() if request["bundles"] or "prune" in request}
    if not requests:
        return []
    key = secret_values(stack)[DEPLOY_KEY]
    texts = {host: json.dumps(request) for host, request in requests.items()}
    replies = asyncio.run(_ask([site.hosts[name] for name in requests], key, "foresee", texts))
    found = []
    for host, reply in replies.items():
        if reply.document is None:
            found.append(f"{host} could not be asked what it would refuse: {reply.error}")
        else:
            refused = reply.document["refused"]
            found += [
                f"{host}: {name}: 'up' would be refused: {named(reason, stack.name)}"
                for name, reason in refused.items()
            ]
    return found


async def _ask(
    hosts: Sequence[Host],
    deploy_key: str,
    verb: str,
    requests: Mapping[str, str] | None = None,
    *,
    seconds: float = CHECK_SECONDS,
) -> dict[str, Reply]:
    identity = asyncssh.import_private_key(deploy_key)
    asked = (ask(host, identity, verb, (requests or {}).get(host.name, ""), seconds=seconds) for host in hosts)
    return {host.name: reply for host, reply in zip(hosts, await asyncio.gather(*asked), strict=True)}


async def ask(host: Host, identity: asyncssh.SSHKey, verb: str, request: str, *, seconds: float) -> Reply:
    """Run a verb of the applier on one host; whatever goes wrong is the reply's ``error``."""
    try:
        done = await run_on(host, identity, applier_command(verb), request=request, seconds=seconds)
    except (OSError, asyncssh.Error) as error:  # a time limit is an OSError too
        return Reply(error=why(host, error), unreachable=True)
    if done.exit_status != 0:
        said = str(done.stderr or "").strip().removeprefix(f"keadb-apply {verb}: ")
        return Reply(error=said or f"exit code {done.exit_status}")
    try:
        return Reply(document=json.loads(str(done.stdout)))
    except ValueError:
        return Reply(error="gave an answer that is not JSON")


def show(made: Report, console: Console) -> None:
    """Print what differs, host by host, with the difference of each file."""
    for item in made.items:
        mark = "  (accepted)" if item.accepted else ""
        head = f"{item.host}:{item.name}  {item.what}  [{item.kind} of bundle {item.bundle}]{mark}"
        console.print(Text(head, style="" if item.accepted else "bold"), soft_wrap=True)
        for line in item.diff:
            console.print(Text(f"    {CONTROL.sub(' ', line)}", style=_style(line)), soft_wrap=True)
    for host, names in made.unfinished.items():
        said = f"{host}: the last run of {', '.join(names)} did not come to its end: 'keadb up' goes on with it"
        console.print(Text(said, style="bold"), soft_wrap=True)
    for host, error in made.unreachable.items():
        console.print(Text(f"! {host}: {error}", style="red"), soft_wrap=True)
    open_items = sum(1 for item in made.items if not item.accepted)
    accepted = len(made.items) - open_items
    verdict = {
        Exit.OK: "in sync with what was applied",
        Exit.CHANGES: f"{open_items} difference{'' if open_items == 1 else 's'}",
        Exit.UNREACHABLE: f"{open_items} differences seen, but not every host answered",
    }[made.exit_code]
    lines = [f"stack {made.stack}: {verdict}{f', {accepted} accepted' if accepted else ''}"]
    if made.exit_code is Exit.CHANGES and open_items:
        command = f"keadb drift --stack {made.stack}"
        lines.append(f"{command} --restore HOST:NAME   puts back what was applied")
        if any(item.kind in STEPS for item in made.items):
            lines.append(f"{command} --restore HOST:bundle:BUNDLE   applies a whole bundle again, steps included")
        lines.append(f"{command} --accept HOST:FILE    seen: the next run may write over it")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _style(line: str) -> str:
    if line.startswith(("+++", "---", "@@")):
        return "dim"
    return {"+": "green", "-": "red"}.get(line[:1], "")
