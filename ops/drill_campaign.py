"""A campaign of drill runs in a folder: planned by a seed, each finished run a line, goes on where it was cut.

A run that was cut is done again from its beginning. Runs are in an order that depends on the seed only.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.drill_record import (
    CAMPAIGN_FILE,
    RUNS_FILE,
    Campaign,
    Record,
    RecordError,
    campaign_of,
    records_of,
    to_json,
)
from ops.exits import CommandError, Exit


@dataclass(frozen=True)
class Task:
    """One run that is to be done."""

    parameters: str
    fault: str
    run: int


def plan(campaign: Campaign) -> list[Task]:
    """Return every run in its order: a parameter set after the other, in each as many rounds of all faults, mixed."""
    chance = random.Random(campaign.seed)  # noqa: S311 -- an order, no secret
    tasks = []
    for parameters in campaign.parameters:
        for run in range(1, campaign.runs + 1):
            faults = list(campaign.faults)
            chance.shuffle(faults)
            tasks += [Task(parameters, fault, run) for fault in faults]
    return tasks


def open_folder(folder: Path, campaign: Campaign) -> list[Record]:
    """Make the campaign's folder, or take up one of the very same campaign; return the runs that are done.

    CommandError for a folder of another campaign, for one that holds anything else, and for a record that is broken.
    """
    asked = folder / CAMPAIGN_FILE
    if not asked.exists():
        if folder.exists() and any(folder.iterdir()):
            msg = f"{folder} is not empty and holds no campaign: give another folder with --out"
            raise CommandError(msg, Exit.USAGE)
        folder.mkdir(parents=True, exist_ok=True)
        _write(asked, to_json(campaign) + "\n")
        return []
    before, records = read_folder(folder)
    if before != campaign:
        msg = f"{folder} holds another campaign: {_differences(before, campaign)}; give another folder with --out"
        raise CommandError(msg, Exit.USAGE)
    return records


def read_folder(folder: Path) -> tuple[Campaign, list[Record]]:
    """Return what a campaign's folder holds; CommandError for what cannot be read."""
    asked, runs = folder / CAMPAIGN_FILE, folder / RUNS_FILE
    try:
        campaign = campaign_of(asked.read_text(encoding="utf-8"), source=str(asked))
        return campaign, records_of(runs.read_text(encoding="utf-8") if runs.exists() else "", source=str(runs))
    except RecordError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        msg = f"{folder} cannot be read: {error.strerror}"
        raise CommandError(msg) from None


def append(folder: Path, record: Record) -> None:
    """Add a finished run, on the disk when this returns; what a killed run left of a line is cut off first."""
    with (folder / RUNS_FILE).open("a+b") as out:
        out.seek(0)
        whole = out.read().rfind(b"\n") + 1
        out.truncate(whole)
        out.write((to_json(record) + "\n").encode())
        out.flush()
        os.fsync(out.fileno())


def left(campaign: Campaign, records: Sequence[Record]) -> list[Task]:
    """Return the runs that are not done yet, in their order."""
    done = {Task(record.parameters, record.fault, record.run) for record in records}
    return [task for task in plan(campaign) if task not in done]


def go_through(
    folder: Path,
    campaign: Campaign,
    records: list[Record],
    *,
    once: Callable[[Task], Record],
    in_force: Callable[[str], AbstractContextManager[None]],
    done: Callable[[Record], None],
) -> list[Record]:
    """Do every run that is left, and return all records. ``once`` does one run.

    ``in_force`` keeps a parameter set in force while it is entered, once for all runs with it that follow each other.
    """
    tasks = left(campaign, records)
    for parameters in campaign.parameters:
        mine = [task for task in tasks if task.parameters == parameters]
        if not mine:
            continue
        with in_force(parameters):
            for task in mine:
                record = once(task)
                append(folder, record)
                records.append(record)
                done(record)
    return records


@contextmanager
def alone(work_dir: Path, stack: str) -> Iterator[None]:
    """Keep other drills off this lab while entered; CommandError when one is at work. Ends with the process."""
    with (work_dir / "drill.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"another drill is at work on {stack}"
            raise CommandError(msg) from None
        yield


def _differences(before: Campaign, asked: Campaign) -> str:
    parts = []
    for name in ("stack", "seed", "faults", "runs", "parameters"):
        old, new = getattr(before, name), getattr(asked, name)
        if old != new:
            parts.append(f"{name} {_shown(old)}, given {_shown(new)}")
    return "; ".join(parts)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
