"""Command ``drill``: words only; the work is in ``ops.drill_campaign`` and ``ops.drill_run``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.exits import CommandError, Exit

if TYPE_CHECKING:
    from ops.drill_campaign import Task
    from ops.drill_record import Campaign, Record
    from ops.stacks import Stack

FORCE_WORDS = "these machines may lose their database"
OWN = "site"
"""The parameter set that the site file describes: nothing is changed for it."""


@click.command()
@click.option("--stack", "-s", "name", help="Stack of a lab.")
@click.option("--fault", "faults", multiple=True, metavar="NAME", help="Only this fault; repeatable. All otherwise.")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each fault.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the order and everything by chance.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; an old one is gone on with.")
@click.option(
    "--parameters", multiple=True, metavar="NAME", help=f"Parameter set to compare; repeatable. Otherwise {OWN}."
)
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
    stack = resolve(name)
    _refuse_real_site(stack, force)
    enter_namespace(stack)
    campaign = Campaign(
        stack=name,
        seed=seed,
        faults=tuple(dict.fromkeys(faults)) or tuple(FAULTS),
        runs=runs,
        parameters=tuple(dict.fromkeys(parameters)) or (OWN,),
    )
    folder = out or Path(f"drill-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    records = _go(stack, campaign, folder.absolute())
    if as_json:
        from ops.drill_record import to_json

        runs_done = [json.loads(to_json(record)) for record in records]
        click.echo(json.dumps({"campaign": json.loads(to_json(campaign)), "runs": runs_done}, indent=2))
    else:
        click.echo(_summary(records, folder))
    from ops.drill_record import Verdict

    return Exit.FAILED if any(record.verdict is Verdict.WRONG for record in records) else Exit.OK


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


def _stop(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _go(stack: Stack, campaign: Campaign, folder: Path) -> list[Record]:
    """Do what is left of the campaign; the lab is whole of levers afterwards, whatever happened."""
    from lab.api import Lab
    from lab.errors import LabError
    from lab.load import load
    from ops import drill_campaign, drill_faults, sites
    from ops.drill_faults import FAULTS
    from ops.drill_run import run_once
    from ops.drill_site import Drilled
    from ops.secrets import secret_values

    site = sites.load(stack)
    sites.require_secrets(stack)
    if site.topology != "ha":
        msg = f"drill needs a site with two database hosts; topology of {stack.name}: {site.topology}, allowed: ha"
        raise CommandError(msg)
    lab, began = Lab(stack.name), time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.1f}s  {line}", err=True)

    with drill_campaign.alone(stack.work_dir, stack.name):
        records = drill_campaign.open_folder(folder, campaign)
        todo = len(drill_campaign.left(campaign, records))
        say(f"{len(records)} runs done, {todo} to do, in {folder}")
        # A terminal's Ctrl-C and a killed session end the same way: healed.
        signal.signal(signal.SIGTERM, _stop)
        try:
            for found in drill_faults.heal_everything(lab) if todo else ():
                say(f"healed: {found} (left by a drill that was cut?)")
            if todo:
                load(lab)
            drilled = Drilled(stack=stack, site=site, lab=lab, secrets=secret_values(stack), folder=folder, say=say)

            def once(task: Task) -> Record:
                say(f"{task.fault}, run {task.run} of {campaign.runs}, parameters {task.parameters}")
                return run_once(
                    drilled, FAULTS[task.fault], run=task.run, seed=campaign.seed, parameters=task.parameters
                )

            return drill_campaign.go_through(
                folder, campaign, records, once=once, in_force=lambda name: in_force(stack, name),
                done=lambda record: say(one_line(record)),
            )  # fmt: skip
        except LabError as error:
            raise CommandError(str(error)) from error


def in_force(stack: Stack, parameters: str) -> Any:
    """Return what keeps a parameter set in force while it is entered."""
    from contextlib import nullcontext

    if parameters == OWN:
        return nullcontext()
    msg = f"--parameters: given {parameters!r}, allowed: {OWN} (stack {stack.name})"
    raise CommandError(msg, Exit.USAGE)


def one_line(record: Record) -> str:
    """Return a run in one line."""
    parts = [
        f"{record.fault} {record.run}: {record.verdict}",
        f"write gap {record.write.longest_s:.1f} s",
        f"read gap {record.read.longest_s:.1f} s",
        f"lost {len(record.lost)} of {record.write.acknowledged}",
        f"two leaders {record.two_leaders}",
        "never whole" if record.rejoin_s is None else f"whole after {record.rejoin_s:.1f} s",
    ]
    return ", ".join(parts) + "".join(f"; {reason}" for reason in record.reasons)


def _summary(records: list[Record], folder: Path) -> str:
    lines = [one_line(record) for record in records]
    return "\n".join([*lines, f"{len(records)} runs in {folder}"])
