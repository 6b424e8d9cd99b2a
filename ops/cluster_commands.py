"""Commands ``switchover``, ``restart``, ``reinit``, ``pause``, ``resume``: words only; the work is in ``cluster``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ops.exits import CommandError, Exit

_LEADER_MATTERS = frozenset(["patroni-switchover", "patroni-restart", "patroni-reinit"])


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    ):
        command = option(command)
    return command


@click.command()
@_options
def switchover(*, name: str, as_json: bool, yes: bool) -> int:
    """Hand the leadership over to the sync standby."""
    return _act(name, ["patroni-switchover"], as_json=as_json, yes=yes)


@click.command()
@click.argument("host", required=False)
@click.option("--rolling", is_flag=True, help="All nodes one by one, the leader last.")
@_options
def restart(*, host: str | None, rolling: bool, name: str, as_json: bool, yes: bool) -> int:
    """Restart PostgreSQL on HOST, or with --rolling on all nodes one by one."""
    if (host is None) != rolling:
        msg = "restart: give either a HOST or --rolling"
        raise CommandError(msg, Exit.USAGE)
    return _act(name, ["patroni-restart", *([host] if host else [])], as_json=as_json, yes=yes)


@click.command()
@click.argument("host")
@_options
def reinit(*, host: str, name: str, as_json: bool, yes: bool) -> int:
    """Have the standby HOST delete its copy of the database and take the leader's."""
    return _act(name, ["patroni-reinit", host], as_json=as_json, yes=yes)


@click.command()
@_options
def pause(*, name: str, as_json: bool, yes: bool) -> int:
    """Have Patroni hold still, for work by hand: nobody takes over from a dead leader."""
    return _act(name, ["patroni-pause", "on"], as_json=as_json, yes=yes)


@click.command()
@_options
def resume(*, name: str, as_json: bool, yes: bool) -> int:
    """End a pause."""
    return _act(name, ["patroni-pause", "off"], as_json=as_json, yes=yes)


COMMANDS = (switchover, restart, reinit, pause, resume)


def _act(name: str, words: list[str], *, as_json: bool, yes: bool) -> int:
    """Show what will happen, ask, do it, and show how it ended."""
    import json

    from ops.stacks import enter_namespace, resolve

    stack = resolve(name)
    if not yes and (as_json or not sys.stdin.isatty()):
        msg = (
            f"{words[0].removeprefix('patroni-')} changes the cluster and there is no terminal to ask on: give --yes"
        )
        raise CommandError(msg, Exit.USAGE)
    enter_namespace(stack)
    from ops import cluster

    def progress(line: str) -> None:
        click.echo(f"  {line}", err=True)

    control = cluster.ControlHost(stack)
    planned = control.verb([*words, "--check"], progress)
    if not as_json:
        click.echo(f"stack {name}: {cluster.members_line(planned)}", err=True)
        for line in planned["happens"]:
            click.echo(f"- {line}", err=True)
    if not yes:
        click.confirm(f"{words[0].removeprefix('patroni-')} on stack {name}?", abort=True, err=True)
    seen = ["--leader", planned["leader"]] if words[0] in _LEADER_MATTERS else []
    answer = control.verb([*words, *seen], progress)
    click.echo(json.dumps(answer, indent=2) if as_json else cluster.ended(answer))
    return Exit.OK
