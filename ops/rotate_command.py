"""Commands ``secrets rotate`` and ``secrets retire``: words only; the work is in ``ops.rotation``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ops.exits import CommandError, Exit

if TYPE_CHECKING:
    from ops.rotation import Plan
    from ops.stacks import Stack


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.argument("what", metavar="NAME"),
    ):
        command = option(command)
    return command


@click.command()
@_options
def rotate(*, what: str, name: str, as_json: bool, yes: bool) -> int:
    """Give NAME a new value in the stack file; the next 'up' brings it into force without an interruption.

    NAME is a pair of logins (kea_owner, kea_read, etcd_patroni) or one of etcd_root_password, patroni_rest_password,
    fingerprint_key. Touches no host.
    """
    from ops.rotation import plan_rotation

    return _change(plan_rotation, "rotate", what, name, as_json=as_json, yes=yes)


@click.command()
@_options
def retire(*, what: str, name: str, as_json: bool, yes: bool) -> int:
    """End a rotation of NAME (kea_owner, kea_read): the login that was kept open is closed by the next 'up'."""
    from ops.rotation import plan_retirement

    return _change(plan_retirement, "retire", what, name, as_json=as_json, yes=yes)


def _change(make: Callable[[Stack, str], Plan], verb: str, what: str, name: str, *, as_json: bool, yes: bool) -> int:
    """Show what will happen, ask, do it, and say what is next."""
    import json

    from ops.rotation import carry_out
    from ops.stacks import resolve

    stack = resolve(name)
    if not yes and (as_json or not sys.stdin.isatty()):
        msg = f"secrets {verb} changes the stack file and there is no terminal to ask on: give --yes"
        raise CommandError(msg, Exit.USAGE)
    plan = make(stack, what)
    if not as_json:
        for line in plan.happens:
            click.echo(f"- {line}", err=True)
    if plan.changes:
        if not yes:
            click.confirm(f"{verb} {what} of stack {name}?", abort=True, err=True)
        carry_out(stack, plan)
    if as_json:
        click.echo(json.dumps(plan.as_dict(), indent=2))
    elif plan.changes:
        click.echo("\n".join(["done; next:", *(f"  {n}. {line}" for n, line in enumerate(plan.then, 1))]))
    return Exit.OK
