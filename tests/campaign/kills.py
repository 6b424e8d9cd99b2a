"""Kill ``keadb up`` at seeded random moments, run it once more, and look whether it ends in the same place.

    python -m tests.campaign.kills --stack kills --seed 1 --count 30

Makes and removes a lab of that name. Every trial is written to a file as it ends; the same command goes on where it
stopped. Exit code 1 when a trial went wrong. Half of the trials are first formations, half are changes; the first
ones are inside the steps of ``tests.campaign.killing.INSIDE``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.api import Lab
from tests.campaign.killing import INSIDE, Killed, Moment, killed_up
from tests.campaign.survey import Survey, survey, wrong_with
from tests.lab.harness import Site

if TYPE_CHECKING:
    from collections.abc import Callable

BIRTH_SECONDS = 42.0
CHANGE_SECONDS = 16.0
"""About what an undisturbed run takes on the machine that CI has; a moment after its end is drawn anew by nobody."""


def _generation(site: dict[str, Any], number: int) -> None:
    for host in site["hosts"].values():
        host["generation"] = number


ROLLING = "a rolling restart"
CHANGES: dict[str, Callable[[dict[str, Any], int], None]] = {
    "a PostgreSQL parameter": lambda site, n: site.setdefault("postgresql", {}).update(
        parameters={"log_min_duration_statement": 1000 + n}
    ),
    "a Patroni parameter": lambda site, n: site.setdefault("patroni", {}).update(
        maximum_lag_on_failover_mb=64 + n % 32
    ),
    ROLLING: lambda site, n: site.setdefault("postgresql", {}).update(max_connections=100 + 10 * (n % 9)),
    "every host's generation": lambda site, n: _generation(site, 2 + n),
}


@dataclass(kw_only=True)
class Trial:
    """One killed run and what the next one made of it."""

    number: int
    kind: str
    moment: str
    killed: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """The warnings of the run after it."""
    seconds: float = 0.0
    """How long that run took."""
    wrong: list[str] = field(default_factory=list)


def plan(seed: int, number: int) -> tuple[str, Moment]:
    """Return kind and moment of a trial: the same for the same seed and number, on any machine."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 -- moments, not secrets
    inside = [*INSIDE]
    if number < len(inside):
        return "birth", Moment(inside=inside[number], seconds=chance.uniform(0, 0.6))
    if number == len(inside):
        return ROLLING, Moment(inside="settings", seconds=chance.uniform(1, 6))
    if number % 2:
        return "birth", Moment(seconds=chance.uniform(0.3, BIRTH_SECONDS))
    return chance.choice([*CHANGES]), Moment(seconds=chance.uniform(0.3, CHANGE_SECONDS))


def run_trial(site: Site, trial: Trial, moment: Moment) -> None:
    """Kill one run in the moment, run again, and note everything that is not as it must be."""
    lab, before = site.lab, None
    if trial.kind == "birth":
        lab.down()
        lab.up()
    else:
        before = survey(lab)
        site.edit(lambda data: CHANGES[trial.kind](data, trial.number))
    killed = killed_up(lab, moment)
    trial.killed = asdict(killed)
    trial.said, trial.seconds, trial.wrong = recovered(site, killed, before=before)


def recovered(site: Site, killed: Killed, *, before: Survey | None) -> tuple[list[str], float, list[str]]:
    """Run ``up`` again after a killed run; return its warnings, its seconds, and everything that is wrong then."""
    began = time.monotonic()
    done = site.keadb("up", "--stack", site.name, "--yes", "--json", check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        return [], seconds, [f"the next run exited {done.returncode}: {done.stdout}{done.stderr}"]
    said = json.loads(done.stdout)["warnings"]
    wrong = []
    if not killed.reached and killed.code:
        wrong.append(f"the run ended by itself with {killed.code} before the moment came")
    after = survey(site.lab)
    wrong += wrong_with(after, site.name)
    if before is not None and before.identity != after.identity:
        wrong.append(f"the cluster is another one: {before.identity} became {after.identity}")
    again = site.keadb("up", "--stack", site.name, "--yes", "--json", "--expect-no-changes", check=False)
    answer = json.loads(again.stdout or "{}")
    if again.returncode:
        wrong.append(f"one more run exited {again.returncode}: {answer.get('counts')} {again.stderr}")
    if answer.get("warnings"):
        wrong.append(f"one more run still warns: {answer['warnings']}")
    last = survey(site.lab)
    if (last.running, last.identity) != (after.running, after.identity):
        wrong.append("one more run touched the hosts")
    status = site.keadb("status", "--stack", site.name, check=False)
    if status.returncode:
        wrong.append(f"status exited {status.returncode}: {status.stdout}")
    return said, seconds, wrong


def main() -> int:
    """Run the trials that are not in the file yet; return 1 when any went wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--stack", required=True, help="name of a lab that may be made and removed")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=30)
    options.add_argument("--only", type=int, action="append", help="only the trial of this number (again)")
    options.add_argument("--state", type=Path, help="file of results (default: build/kills-SEED.jsonl)")
    options.add_argument("--keep", action="store_true", help="leave the lab running")
    given = options.parse_args()
    results: Path = given.state or Path(f"build/kills-{given.seed}.jsonl")
    results.parent.mkdir(parents=True, exist_ok=True)
    ended = {t["number"]: t for t in map(json.loads, results.read_text().splitlines())} if results.exists() else {}
    site = Site(given.stack, Lab(given.stack))
    numbers = given.only or [n for n in range(given.count) if n not in ended]
    _ready(site)
    for number in numbers:
        kind, moment = plan(given.seed, number)
        trial = Trial(number=number, kind=kind, moment=str(moment))
        if kind != "birth":
            _ready(site)
        run_trial(site, trial, moment)
        ended[number] = asdict(trial)
        with results.open("a") as out:
            out.write(json.dumps(ended[number]) + "\n")
        print(_line(ended[number]), flush=True)
        if trial.wrong:
            break  # the site is left as it is, to be looked at
    else:
        if not given.keep:
            site.lab.down()
    bad = sorted(n for n, t in ended.items() if t["wrong"])
    print(f"{len(ended)} trials in {results}, wrong: {bad or 'none'}")
    return 1 if bad else 0


def _ready(site: Site) -> None:
    """Have a site that is up, whatever an earlier run of the campaign left."""
    site.lab.up()
    site.keadb("up", "--stack", site.name, "--yes")


def _line(trial: dict[str, Any]) -> str:
    verdict = "WRONG: " + "; ".join(trial["wrong"]) if trial["wrong"] else "ok"
    reached = "killed" if trial["killed"].get("reached") else "ended before"
    return (
        f"{trial['number']:3} {trial['kind']}, {trial['moment']}: "
        f"{reached} after {trial['killed']['seconds']:.1f} s, "
        f"next run {trial['seconds']:.1f} s {trial['said']} {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
