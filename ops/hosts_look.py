"""A look at the hosts before ``up``: whether each still has what the engine believes that it was given.

A wiped or rebuilt machine changes no input of the program, so the engine alone would leave it as it is. What was
applied is compared with what the hosts say; the commands of a host that lost it are run again, and so are those that
mend a standby whose data can follow no leader any more. A host that cannot be asked is no error here: if ``up`` needs
it, ``up`` says so. Reads only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from keadb.bundle import APPLIER, applier_command
from keadb.site import Host, Site
from ops.events import COMMAND_TYPE, place_of, urn_name
from ops.exits import CommandError
from ops.leaving import Leaver, leavers
from ops.pulumi_cli import NO_STACK, Engine
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack
from ops.status import run_on, why

APPLY = applier_command("apply")
NO_APPLIER = 44
COMMAND = f"test -x {APPLIER} || exit {NO_APPLIER}; exec {applier_command('version')}"

AFTER_LOSS = {
    "etcd": (("etcd-form", "etcd-roll"), ()),
    "database": (("kea-roles",), ("patroni-converge", "kea-database")),
    "witness": ((), ()),
}
"""By role of a host that lost what was applied: the steps that also run again on every host of that role, and those
that do on the control host. They find out what is to be done; where nothing is, they do nothing."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the engine's state says a host was given: the URN of every command, and each bundle's digest by name."""

    urns: tuple[str, ...] = ()
    bundles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a host says: digests of its applied bundles by name (empty: too old to say); None without an applier.

    ``error`` is why it could not be asked.
    """

    bundles: Mapping[str, str] | None = None
    unfit: str = ""
    """Why its database can follow no leader any more, in PostgreSQL's words."""
    error: str = ""


@dataclass(kw_only=True)
class Look:
    """What to do about it: URNs to replace, and what to tell people."""

    replace: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    leaving: tuple[Leaver, ...] = ()
    """Hosts that the state has and the site file does not."""


def look(stack: Stack, site: Site, *, only: Sequence[str] = ()) -> Look:
    """Compare state and hosts; nothing is asked when nothing was ever applied.

    ``only`` limits the repair to these hosts. Raises CommandError when both database hosts lost what was applied,
    and for what keeps the state or the secrets from being read.
    """
    unknown = sorted(set(only) - set(site.hosts))
    if unknown:
        msg = f"--repair: given {', '.join(unknown)}, allowed: {', '.join(site.hosts)}"
        raise CommandError(msg)
    engine = Engine(stack)
    engine.prepare_backend()
    with ThreadPoolExecutor() as pool:
        # Two calls of the CLI, a third of a second each.
        secret = pool.submit(secret_values, stack)
        state = _state(engine)
        given = applied(state, site)
        if not any(host.urns for host in given.values()):
            return _leaving(Look(), state, site)
        key = secret.result()[DEPLOY_KEY]
    seen = asyncio.run(_ask_all([site.hosts[name] for name, host in given.items() if host.urns], key))
    return _leaving(decide(site, given, seen, only=only), state, site)


def without_asking(stack: Stack, site: Site) -> Look:
    """Return what the state alone says; no host is asked, so nothing is to be replaced."""
    engine = Engine(stack)
    engine.prepare_backend()
    return _leaving(Look(), _state(engine), site)


def _leaving(made: Look, state: Mapping[str, Any], site: Site) -> Look:
    made.leaving = leavers(state, list(site.hosts))
    made.notes += [leaver.note for leaver in made.leaving]
    return made


def _state(engine: Engine) -> Mapping[str, Any]:
    try:
        return dict(json.loads(engine.call("stack", "export")))
    except CommandError as error:
        if NO_STACK not in str(error):
            raise
        return {}


def applied(state: Mapping[str, Any], site: Site) -> dict[str, Given]:
    """Return what the state says each host was given. Only names, digests and URNs leave this function."""
    urns: dict[str, list[str]] = {name: [] for name in site.hosts}
    bundles: dict[str, dict[str, str]] = {name: {} for name in site.hosts}
    for resource in (state.get("deployment") or {}).get("resources") or ():
        urn = resource["urn"]
        host = place_of(urn, site.hosts).host
        if urn_name(urn)[0] != COMMAND_TYPE or host is None or resource.get("delete"):
            continue
        urns[host].append(urn)
        inputs = resource.get("inputs") or {}
        if inputs.get("create") == APPLY and isinstance(inputs.get("stdin"), str):
            bundle = json.loads(inputs["stdin"])
            bundles[host][bundle["bundle"]] = _digest(bundle)
    return {name: Given(urns=tuple(urns[name]), bundles=bundles[name]) for name in site.hosts}


def _digest(bundle: Mapping[str, Any]) -> str:
    """Return the digest that ``hostkit.applied`` makes of a bundle."""
    return hashlib.sha256(json.dumps(bundle, sort_keys=True).encode()).hexdigest()


async def _ask_all(hosts: Sequence[Host], deploy_key: str) -> dict[str, Seen]:
    identity = asyncssh.import_private_key(deploy_key)
    answers = await asyncio.gather(*(_ask(host, identity) for host in hosts))
    return {host.name: answer for host, answer in zip(hosts, answers, strict=True)}


async def _ask(host: Host, identity: asyncssh.SSHKey) -> Seen:
    try:
        done = await run_on(host, identity, COMMAND)
    except (OSError, asyncssh.Error) as error:  # a time limit is an OSError too
        return Seen(error=why(host, error))
    return seen(done.exit_status, str(done.stdout or ""), str(done.stderr or ""))


def seen(code: int | None, stdout: str, stderr: str) -> Seen:
    """Return what an answer means."""
    if code == NO_APPLIER:
        return Seen()
    try:
        answer = json.loads(stdout if code == 0 else "null")
        # An applier of an older version only tells names.
        bundles = dict(answer.get("digests") or dict.fromkeys(answer["applied"], ""))
        return Seen(bundles=bundles, unfit=str(answer.get("unfit", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = stderr.strip().splitlines()
        return Seen(error=said[-1] if said else f"exit code {code} and no answer that can be read")


def decide(site: Site, given: Mapping[str, Given], answers: Mapping[str, Seen], *, only: Sequence[str] = ()) -> Look:
    """Return which commands run again and why; CommandError when both database hosts lost what was applied. Pure."""
    made = Look()
    lost: dict[str, str] = {}
    replace: set[str] = set()
    for name, answer in answers.items():
        if answer.error:
            made.notes.append(f"{name} could not be asked what is applied there: {answer.error}")
        elif reason := _lost(given[name], answer):
            lost[name] = reason
        elif other := _other(given[name], answer):
            made.notes.append(
                f"{name} has another version of {', '.join(other)} than was last applied from here: sent to it again"
            )
            # Loaded rules of the firewall are taken back unless they are confirmed; they are no service's.
            replace |= _steps(site, given, name, *other, *(["firewall-confirm"] if "firewall" in other else []))
            if other != ["firewall"]:
                # What only stages a service is brought into force by the cluster's steps, as after any change.
                replace |= _steps(site, given, name, "patroni-form")
                replace |= _shared(site, given, site.hosts[name])
        if answer.unfit and (not only or name in only):
            made.notes.append(
                f"{name} can follow its leader no more ({answer.unfit}): it is copied anew if that loses nothing"
            )
            replace |= _steps(site, given, name, "patroni-form")
            replace |= _steps(site, given, site.control_host.name, "patroni-converge")
    repaired = [name for name in lost if not only or name in only]
    databases = [name for name in repaired if "database" in site.hosts[name].roles]
    if len(databases) > 1:
        raise CommandError(_both(databases, lost))
    for name, reason in lost.items():
        if name in repaired:
            made.notes.append(f"{name} no longer has what was applied ({reason}): everything is sent to it again")
            replace |= {*given[name].urns, *_shared(site, given, site.hosts[name])}
        else:
            made.notes.append(f"{name} no longer has what was applied ({reason}); it is left for another run")
    made.replace = tuple(sorted(replace))
    return made


def _lost(given: Given, answer: Seen) -> str:
    """Return what a host lost, in words; empty when it still has a record of everything."""
    if answer.bundles is None:
        return "it has no applier"
    missing = [name for name in given.bundles if name not in answer.bundles]
    if missing and len(missing) == len(given.bundles):
        return "nothing is left of it"
    return f"missing: {', '.join(missing)}" if missing else ""


def _other(given: Given, answer: Seen) -> list[str]:
    """Return the bundles that the host has in another version than the state says."""
    has = answer.bundles or {}
    return [name for name, digest in given.bundles.items() if has.get(name) and has[name] != digest]


def _shared(site: Site, given: Mapping[str, Given], lost: Host) -> set[str]:
    """Return the commands of other hosts that must run again to take a host back into its cluster."""
    found: set[str] = set()
    for role in lost.roles:
        everywhere, control = AFTER_LOSS[role]
        for host in site.hosts.values():
            steps = {*(everywhere if role in host.roles else ()), *(control if host == site.control_host else ())}
            found |= _steps(site, given, host.name, *steps)
    return found


def _steps(site: Site, given: Mapping[str, Given], host: str, *steps: str) -> set[str]:
    """Return the commands of these steps on one host."""
    return {urn for urn in given[host].urns if place_of(urn, site.hosts).step in steps}


def _both(databases: Sequence[str], lost: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{name}: {lost[name]}" for name in databases)
    return (
        f"both database hosts no longer have what was applied ({reasons}). They are never rebuilt in one go: one of "
        f"them may hold the last copy. Find out which one does (look for {databases[0]}:/var/lib/postgresql), then "
        f"rebuild the other one alone with 'keadb up --repair HOST', wait until 'keadb status' is healthy, and run "
        f"'keadb up' for the rest. If neither holds a copy, the site must be restored from its backup"
    )
