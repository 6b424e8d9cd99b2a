"""Command ``drift``: words only; the work is in ``ops.drift``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from ops.exits import CommandError, Exit

if TYPE_CHECKING:
    from keadb.site import Site
    from ops.engine import Result
    from ops.stacks import Stack


@click.command()
@click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@click.option("--accept", multiple=True, metavar="HOST:FILE", help="I have seen this edit: the next 'up' may end it.")
@click.option("--restore", multiple=True, metavar="HOST:NAME", help="Put a file, unit or package back as applied.")
def drift(*, name: str, as_json: bool, accept: tuple[str, ...], restore: tuple[str, ...]) -> int:
    """Show what on which host is not as it was applied. Exit 0: nothing, 2: something, 3: a host did not answer."""
    import json

    from rich.console import Console

    from ops.stacks import enter_namespace, resolve

    if accept and restore:
        msg = "drift: give either --accept or --restore"
        raise CommandError(msg, Exit.USAGE)
    stack = resolve(name)
    enter_namespace(stack)
    from ops import drift as module

    if accept or restore:
        verb = "accept" if accept else "restore"
        answers = module.change(stack, verb, accept or restore)
        if as_json:
            click.echo(json.dumps(answers, indent=2))
        else:
            for host, answer in answers.items():
                for line in module.told(host, answer):
                    click.echo(line)
        return Exit.OK
    made = module.look(stack)
    if as_json:
        click.echo(json.dumps(made.as_dict(), indent=2))
    else:
        module.show(made, Console(highlight=False))
    return made.exit_code


def named(reason: str, stack: str) -> str:
    """Put the stack's name into the commands that a host's refusal proposes: hosts do not know it."""
    return re.sub(r"--stack STACK\b", f"--stack {stack}", reason)


def warn_of_refusals(stack: Stack, site: Site, planned: Result) -> None:
    """Say on stderr what 'up' would refuse, after a preview that looked at the hosts."""
    from ops.drift import foresee

    for warning in foresee(stack, site, ((step.place.host, step.place.step) for step in planned.run.changed())):
        click.echo(f"warning: {warning}", err=True)
