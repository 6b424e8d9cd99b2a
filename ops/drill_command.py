"""Command ``drill``: words only; the work is in ``ops.drill_work`` and below."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.exits import CommandError, Exit

if TYPE_CHECKING:
    from ops.stacks import Stack

FORCE_WORDS = "these machines may lose their database"


@click.command()
@click.option("--stack", "-s", "name", help="Stack of a lab.")
@click.option("--fault", "faults", multiple=True, metavar="NAME", help="Only this fault; repeatable. All otherwise.")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each fault.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the order and everything by chance.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; an old one is gone on with.")
@click.option("--parameters", multiple=True, metavar="NAME", help="Set of timings to compare; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@click.option("--list", "listed", is_flag=True, help="List the faults and what they do.")
@click.option("--force-on-a-real-site", "force", metavar="WORDS", help=f'"{FORCE_WORDS}", in these words.')
def drill(
    *,
    name: str | None,
    faults: tuple[str, ...],
    runs: int,
    seed: int,
    out: Path | None,
    parameters: tuple[str, ...],
    as_json: bool,
    listed: bool,
    force: str | None,
) -> int:
    """Break a lab on purpose, and prove that no acknowledged write is lost. Exit 0: no run went wrong."""
    import json

    from rich.console import Console

    from ops import drill_parameters
    from ops.drill_faults import FAULTS
    from ops.drill_record import Campaign
    from ops.stacks import enter_namespace, resolve

    if listed:
        _list(as_json=as_json)
        return Exit.OK
    if name is None:
        msg = "drill: give the stack of a lab with --stack"
        raise CommandError(msg, Exit.USAGE)
    for fault in faults:
        if fault not in FAULTS:
            msg = f"--fault: given {fault!r}, allowed: {', '.join(FAULTS)}"
            raise CommandError(msg, Exit.USAGE)
    drill_parameters.check_names(parameters)
    stack = resolve(name)
    _refuse_real_site(stack, force)
    enter_namespace(stack)
    campaign = Campaign(
        stack=name,
        seed=seed,
        faults=tuple(dict.fromkeys(faults)) or tuple(FAULTS),
        runs=runs,
        parameters=parameters or (drill_parameters.AS_IT_IS,),
    )
    folder = (out or Path(f"drill-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")).absolute()
    from ops import drill_table, drill_work
    from ops.drill_record import Verdict, to_json

    done = drill_work.do(stack, campaign, folder)
    if as_json:
        runs_done = [json.loads(to_json(record)) for record in done.records]
        click.echo(json.dumps({"campaign": json.loads(to_json(campaign)), "runs": runs_done}, indent=2))
    else:
        drill_table.show(done.records, Console(highlight=False), faults=campaign.faults)
        click.echo(f"\n{done.report}")
    return Exit.FAILED if any(record.verdict is Verdict.WRONG for record in done.records) else Exit.OK


def _refuse_real_site(stack: Stack, force: str | None) -> None:
    if stack.is_lab:
        return
    if force != FORCE_WORDS:
        given = "" if force is None else f" (given {force!r})"
        msg = (
            f"drill breaks what it is pointed at, and {stack.name} is a real site: nothing was done. It is forced "
            f'only with --force-on-a-real-site "{FORCE_WORDS}"{given}'
        )
        raise CommandError(msg, Exit.USAGE)
    msg = (
        f"drill: every fault needs a lever of a lab (power, cable, freezer, root on the hosts), and {stack.name} has "
        "none: nothing was done. What a real site can be drilled with is 'keadb switchover'"
    )
    raise CommandError(msg, Exit.USAGE)


def _list(*, as_json: bool) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from ops.drill_faults import FAULTS

    if as_json:
        rows = [{"name": f.name, "about": f.about, "target_s": f.target_s} for f in FAULTS.values()]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("fault", "what happens", "target for the write gap"):
        table.add_column(column, overflow="fold")
    for fault in FAULTS.values():
        table.add_row(fault.name, fault.about, "" if fault.target_s is None else f"{fault.target_s:g} s")
    Console(highlight=False).print(table, markup=False)
