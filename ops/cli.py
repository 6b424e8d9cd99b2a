"""The command line. Only words are handled here; the work is in the modules beside this one.

Those are imported where a command needs them: ``keadb validate`` must not wait for an engine's SDK to load.
"""
# ruff: noqa: PLC0415 -- see above

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.audit_command import audit
from ops.cluster_commands import COMMANDS
from ops.connect_command import connect
from ops.drift_command import drift, named, warn_of_refusals
from ops.drill_command import drill
from ops.drill_report_command import drill_report
from ops.exits import CommandError, Exit
from ops.rotate_command import retire, rotate

if TYPE_CHECKING:
    from datetime import date

    from rich.console import Console

    from ops.engine import Result
    from ops.hosts_look import Look
    from ops.stacks import Stack

stack_option = click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")


class _Commands(click.Group):
    """Loads ``keadb lab`` when it is asked for; everything else is registered below."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "lab"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "lab":
            from lab.cli import lab

            return lab
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """High-availability PostgreSQL for Kea DHCP: one stack a site."""


for _command in (*COMMANDS, audit, connect, drift, drill, drill_report):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every error is one message and an exit code (docs/operations.md)."""
    try:
        code = cli.main(prog_name="keadb", standalone_mode=False)
    except CommandError as error:
        _fail(str(error), error.code)
    except click.exceptions.Abort:
        _fail("stopped", Exit.INTERRUPTED)
    except KeyboardInterrupt:
        _fail("stopped", Exit.INTERRUPTED)
    except click.UsageError as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.FAILED)
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _today() -> date:
    from datetime import UTC, datetime

    return datetime.now(UTC).date()


def _fail(message: str, code: Exit) -> None:
    click.echo(f"keadb: {message}", err=True)
    sys.exit(code)


def _console(*, err: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        stack_option,
        click.option("--diff", is_flag=True, help="The engine's own difference, down to lines of files."),
        click.option("--expect-no-changes", is_flag=True, help="Exit 2 when anything changes or would."),
        json_option,
    ):
        command = option(command)
    return command


@cli.command()
@_engine_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--no-look", is_flag=True, help="Do not ask the hosts first whether they still have what was applied.")
@click.option("--repair", multiple=True, metavar="HOST", help="Of hosts that lost what was applied, only this one.")
def up(
    *,
    name: str,
    diff: bool,
    expect_no_changes: bool,
    as_json: bool,
    yes: bool,
    no_look: bool,
    repair: tuple[str, ...],
) -> int:
    """Bring the hosts of a stack to what its site file says."""
    if no_look and repair:
        msg = "--repair needs the look at the hosts: leave --no-look out"
        raise CommandError(msg, Exit.USAGE)
    return _operate(
        "up",
        name,
        diff=diff,
        expect_no_changes=expect_no_changes,
        as_json=as_json,
        yes=yes,
        look=not no_look,
        repair=repair,
    )


@cli.command()
@_engine_options
@click.option("--check-hosts", is_flag=True, help="Ask the hosts too what they lost and would refuse.")
def preview(*, name: str, diff: bool, expect_no_changes: bool, as_json: bool, check_hosts: bool) -> int:
    """Show what 'up' would change; nothing is touched."""
    return _operate(
        "preview",
        name,
        diff=diff,
        expect_no_changes=expect_no_changes,
        as_json=as_json,
        yes=True,
        look=check_hosts,
    )


@cli.command()
@stack_option
@json_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def destroy(*, name: str, as_json: bool, yes: bool) -> int:
    """Forget the stack's resources. Hosts keep what runs on them."""
    return _operate("destroy", name, diff=False, expect_no_changes=False, as_json=as_json, yes=yes)


def _operate(
    operation: str,
    name: str,
    *,
    diff: bool,
    expect_no_changes: bool,
    as_json: bool,
    yes: bool,
    look: bool = False,
    repair: tuple[str, ...] = (),
) -> int:
    from ops import hosts_look, sites
    from ops.stacks import enter_namespace, resolve

    stack = resolve(name)
    ask = not yes and operation != "preview"
    if ask and (as_json or not sys.stdin.isatty()):
        msg = f"{operation} changes hosts and there is no terminal to ask on: give --yes"
        raise CommandError(msg, Exit.USAGE)
    site = sites.load(stack)
    if operation != "destroy":
        for warning in sites.require_usable(stack, site, today=_today(), touches_hosts=operation == "up"):
            click.echo(f"warning: {warning}", err=True)
    sites.require_secrets(stack)
    enter_namespace(stack)
    seen = hosts_look.look(stack, site, only=repair) if look else hosts_look.without_asking(stack, site)
    hosts = (*site.hosts, *(leaver.name for leaver in seen.leaving))
    for note in seen.notes:
        click.echo(f"warning: {note}", err=True)
    if ask:
        planned = _run(stack, "preview" if operation == "up" else "", hosts, seen, diff=diff, as_json=False)
        if planned is not None and planned.failed:
            return Exit.FAILED
        if planned is not None and not planned.run.changes:
            return Exit.OK
        if planned is not None and look:
            warn_of_refusals(stack, site, planned)
        click.confirm(f"{operation} stack {name}?", abort=True)
    result = _run(stack, operation, hosts, seen, diff=diff and not ask, as_json=as_json)
    if result is not None and operation == "preview" and look:
        warn_of_refusals(stack, site, result)
    return Exit.OK if result is None else result.exit_code(expect_no_changes=expect_no_changes)


def _run(
    stack: Stack, operation: str, hosts: tuple[str, ...], seen: Look, *, diff: bool, as_json: bool
) -> Result | None:
    """Run one operation and show it; None for no operation at all."""
    if not operation:
        return None
    import json

    from ops import engine, leaving, progress

    out, err = _console(), _console(err=True)
    display: Any
    if as_json or diff or operation == "preview":
        display = progress.Silent()
    elif err.is_terminal:
        display = progress.Screen(err)
    else:
        display = progress.Lines(err)
    options = engine.Options(
        diff=click.echo if diff and not as_json else None,
        color=diff and sys.stdout.isatty(),
        replace=seen.replace,
        notes=tuple(seen.notes),
    )
    goes = leaving.Leaving(stack, seen.leaving if operation == "up" else ())
    _warn(goes.stop(leaving.DATABASE))
    with display:
        result = engine.operate(stack, operation, hosts=hosts, display=display, options=options)
    if not result.failed:
        _warn(goes.stop(leaving.ETCD))
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        _show(result, out, err)
    return result


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"warning: {line}", err=True)


def _show(result: Result, out: Console, err: Console) -> None:
    """Print the summary table, then every failure, then one line that says how it ended."""
    from ops.progress import summary_table

    preview = result.operation == "preview"
    if result.run.changed():
        out.print(summary_table(result.run, preview=preview))
    for warning in result.run.warnings:
        err.print(f"warning: {warning}", markup=False, soft_wrap=True)
    for failure in result.run.failures:
        err.print(f"error: {named(str(failure), result.stack)}", style="red", markup=False, soft_wrap=True)
    # The engine counts what groups others too; people count what runs on hosts.
    count = len(result.run.changed()) or result.run.changes
    changes = "no changes" if not count else f"{count} change{'' if count == 1 else 's'}"
    if not preview and not result.failed and result.run.left_hosts_alone:
        changes += ", nothing changed on any host,"
    ended = "stopped" if result.interrupted else "failed"
    how = ended if result.failed else ("would make " + changes if preview else changes)
    out.print(f"{result.operation} {result.stack}: {how} in {result.seconds:.1f} s", markup=False)


@cli.command()
@stack_option
@json_option
def status(*, name: str, as_json: bool) -> int:
    """Show one screen: who leads, who follows, etcd, Kea's schema, certificates. Exit 0 means healthy."""
    import json

    from ops.stacks import enter_namespace, resolve

    stack = resolve(name)
    enter_namespace(stack)
    from ops import status as module

    made = module.look(stack)
    if as_json:
        click.echo(json.dumps(made.as_dict(), indent=2))
    else:
        module.show(made, _console())
    return made.exit_code


@cli.group()
def secrets() -> None:
    """Make, rotate and show a stack's secrets (never their values)."""


secrets.add_command(rotate)
secrets.add_command(retire)


@secrets.command("init")
@stack_option
def secrets_init(*, name: str) -> None:
    """Make the secrets that the stack does not have yet; what is there is kept."""
    from ops.secrets import init_secrets

    made = init_secrets(name)
    for secret in made.new:
        click.echo(f"new   {secret}")
    for secret in made.kept:
        click.echo(f"kept  {secret}")
    click.echo(f"\nHosts must let this key in as their deploy user:\n{made.deploy_public_key}")


@secrets.command("public")
@stack_option
def secrets_public(*, name: str) -> None:
    """Print the deploy key's public half and the CA certificate."""
    from keadb.pki import ca_certificate
    from keadb.secrets import ssh_public_key
    from ops import sites
    from ops.secrets import secret_values
    from ops.stacks import resolve

    stack = resolve(name)
    site = sites.load(stack)
    values = secret_values(stack)
    click.echo(ssh_public_key(values["deploy_key"]))
    click.echo(ca_certificate(values["ca_key"], site), nl=False)


@cli.command()
@click.option("--stack", "-s", "name", help="Only this stack; all of the repository otherwise.")
@json_option
def validate(*, name: str | None, as_json: bool) -> int:
    """Check stack files: no engine, no network, no secret."""
    from ops import sites
    from ops.stacks import known_stacks, resolve

    stacks = [resolve(name)] if name else [s for s in known_stacks().values() if not s.is_lab]
    found = {stack.name: sites.problems(stack, today=_today()) for stack in stacks}
    bad = {name: problems for name, problems in found.items() if problems}
    if as_json:
        import json

        keys = ("key", "problem", "given", "allowed")
        answer = {name: [dict(zip(keys, p, strict=True)) for p in problems] for name, problems in found.items()}
        click.echo(json.dumps(answer, indent=2))
        return Exit.FAILED if bad else Exit.OK
    if bad:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("stack", "key", "problem", "given", "allowed"):
            table.add_column(column, overflow="fold")
        for stack_name, problems in bad.items():
            for problem in problems:
                table.add_row(stack_name, *problem)
        _console().print(table, markup=False)
        return Exit.FAILED
    click.echo(f"{len(found)} stack file{'' if len(found) == 1 else 's'} without a problem: {', '.join(found)}")
    return Exit.OK


@cli.command()
@stack_option
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
def render(*, name: str, out: Path) -> None:
    """Write every file of every host into a folder: no engine, no state, no secret."""
    from components.catalog import bundles
    from keadb.render_tree import RenderError, write_tree
    from ops import sites
    from ops.stacks import resolve

    site = sites.load(resolve(name))
    try:
        written = write_tree(out, bundles(site))
    except RenderError as error:
        raise CommandError(str(error)) from error
    click.echo(f"{len(written)} files of {len(site.hosts)} hosts in {out}")
