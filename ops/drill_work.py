"""What ``keadb drill`` does once its words are understood: a campaign on a lab, its progress, its report."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lab.api import Lab
from lab.errors import LabError
from lab.load import load
from ops import drill_campaign, drill_faults, drill_parameters, drill_report, sites
from ops.drill_campaign import Task
from ops.drill_faults import FAULTS
from ops.drill_record import Campaign, Record
from ops.drill_run import run_once, uninterrupted
from ops.drill_site import WHOLE_S, Drilled, wait_until_whole
from ops.exits import CommandError
from ops.secrets import secret_values
from ops.stacks import Stack


@dataclass(frozen=True)
class Done:
    """Every record of the campaign, those of before included, and where the report is."""

    records: list[Record]
    report: Path


def do(stack: Stack, campaign: Campaign, folder: Path) -> Done:
    """Do what is left of the campaign, inside the lab's network; progress goes to stderr.

    Whatever ends it, the lab is healed, and the report is written of the runs that are done. CommandError for what
    keeps it from going on.
    """
    site = sites.load(stack)
    sites.require_secrets(stack)
    if site.topology != "ha":
        msg = f"drill needs a site with two database hosts; topology of {stack.name}: {site.topology}, allowed: ha"
        raise CommandError(msg)
    say = _progress()
    with drill_campaign.alone(stack.work_dir, stack.name), _terminated():
        records = drill_campaign.open_folder(folder, campaign)
        (folder / drill_report.MACHINE_FILE).write_text(machine() + "\n", encoding="utf-8")
        todo = len(drill_campaign.left(campaign, records))
        say(f"{len(records)} runs done, {todo} to do, in {folder}")
        drilled = Drilled(
            stack=stack, site=site, lab=Lab(stack.name), secrets=secret_values(stack), folder=folder, say=say
        )
        try:
            if todo:
                _go_through(drilled, campaign, records)
        except (LabError, subprocess.TimeoutExpired) as error:
            raise CommandError(str(error)) from error
        finally:
            with uninterrupted():
                about = {fault.name: fault.about for fault in FAULTS.values()}
                report = drill_report.write(folder, records, about=about)
        return Done(records, report)


def _go_through(drilled: Drilled, campaign: Campaign, records: list[Record]) -> None:
    say = drilled.say
    for found in drill_faults.heal_everything(drilled.lab):
        say(f"healed: {found} (left by a drill that was cut?)")
    _require_whole(drilled)
    load(drilled.lab)

    def once(task: Task) -> Record:
        number = len(records) + 1
        say(f"run {number}: {task.fault}, {task.run} of {campaign.runs}, parameters {task.parameters}")
        return run_once(drilled, FAULTS[task.fault], run=task.run, seed=campaign.seed, parameters=task.parameters)

    drill_campaign.go_through(
        drilled.folder,
        campaign,
        records,
        once=once,
        in_force=lambda name: _in_force(drilled, name),
        done=lambda record: say(one_line(record)),
    )


@contextlib.contextmanager
def _in_force(drilled: Drilled, name: str) -> Iterator[None]:
    """Have a parameter set in force; a site is whole before its parameters are touched, also after a Ctrl-C."""
    changes = name != drill_parameters.AS_IT_IS
    if changes:
        drilled.say(f"parameters {name} are brought into force")
    with drill_parameters.in_force(drilled.stack, name):
        try:
            yield
        finally:
            if changes:
                drilled.say("the site's own parameters are put back once it is whole")
                _require_whole(drilled)


def _require_whole(drilled: Drilled) -> None:
    made, whole = wait_until_whole(drilled, lambda: True)
    if whole is None:
        msg = f"{drilled.stack.name} was not whole within {WHOLE_S:.0f} s: {'; '.join(made.problems)}"
        raise CommandError(msg)


def _progress() -> Callable[[str], None]:
    began = time.monotonic()
    return lambda line: click.echo(f"{time.monotonic() - began:7.1f}s  {line}", err=True)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Have SIGTERM end things as Ctrl-C does: healed."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def machine() -> str:
    """Return in one line on what this runs; seconds mean little without it."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB of memory, Linux {kernel}, hosts are containers"


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
