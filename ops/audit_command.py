"""Command ``audit``: words only; the work is in ``ops.audit``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import click


@click.command()
@click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def audit(*, name: str, as_json: bool) -> int:
    """Check the running hosts against the list of docs/hardening.md. Exit 0: all pass, 2: some fail, 3: unknown."""
    import json

    from rich.console import Console

    from ops.stacks import enter_namespace, resolve

    stack = resolve(name)
    enter_namespace(stack)
    from ops import audit as module

    made = module.look(stack)
    if as_json:
        click.echo(json.dumps(made.as_dict(), indent=2))
    else:
        module.show(made, Console(highlight=False))
    return made.exit_code
