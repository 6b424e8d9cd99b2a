"""Make every change of the list on a real site under a writer and a reader, measure it, and undo it.

    python -m tests.campaign.changes --stack chg

Makes and removes a lab of that name. Every change is written to a file as it ends; the same command goes on where it
stopped. At the end, and with ``--table`` alone, the results are printed as docs/changes.md shows them, and with
``--docs docs/changes.md`` put there. Exit code 1 when anything was wrong: a lost row, a pending restart, a start that
the change does not declare, a next preview with changes, an unhealthy site. The changes are in
``tests.campaign.change_list``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.api import Lab
from tests.campaign.change_list import CHANGES
from tests.campaign.change_table import put_into, table
from tests.campaign.measuring import Clients, Result, measure
from tests.lab.clients import reading, writing
from tests.lab.harness import Site

if TYPE_CHECKING:
    from tests.campaign.change_list import Change

NAMES = tuple(change.name for change in CHANGES)


def main() -> int:
    """Make the changes that have no good result yet; return 1 when any went wrong."""
    given = _options()
    # As Ctrl-C: the clients are ended too. (A shell without a terminal ignores Ctrl-C for what it starts.)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results: Path = given.state or Path(f"build/changes-{given.stack}.jsonl")
    if given.list:
        for change in CHANGES:
            print(f"{change.name:20} {change.what}")
        return 0
    ended = _ended(results)
    if not given.table:
        wanted = [c for c in CHANGES if c.name in given.only] if given.only else _left(ended)
        results.parent.mkdir(parents=True, exist_ok=True)
        _campaign(Site(given.stack, Lab(given.stack)), wanted, results, keep=given.keep)
        ended = _ended(results)
    measured = table([ended[name] for name in NAMES if name in ended])
    print(measured)
    if given.docs:
        given.docs.write_text(put_into(given.docs.read_text(encoding="utf-8"), measured), encoding="utf-8")
    bad = [name for name, result in ended.items() if result["wrong"]]
    for name in bad:
        for line in ended[name]["wrong"]:
            print(f"wrong: {name}: {line}")
    print(f"{len(ended)} of {len(CHANGES)} changes in {results}, wrong: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--stack", required=True, help="name of a lab that may be made and removed")
    options.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help="only this change (again)")
    options.add_argument("--list", action="store_true", help="the changes' names, nothing else")
    options.add_argument("--table", action="store_true", help="the table of what was measured, nothing else")
    options.add_argument("--docs", type=Path, help="also put the table into this document (docs/changes.md)")
    options.add_argument("--state", type=Path, help="file of results (default: build/changes-STACK.jsonl)")
    options.add_argument("--keep", action="store_true", help="leave the lab running")
    return options.parse_args()


def _ended(results: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each change; a line that was cut by a kill is no result."""
    found = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        found[result["name"]] = result
    return found


def _left(ended: dict[str, dict[str, Any]]) -> list[Change]:
    return [c for c in CHANGES if c.name not in ended or ended[c.name]["wrong"]]


def _campaign(site: Site, wanted: list[Change], results: Path, *, keep: bool) -> None:
    base = results.with_suffix(".site.yaml")
    _ready(site, base)
    stopped = False
    with (
        tempfile.TemporaryDirectory() as folder,
        writing(site, Path(folder)) as writer,
        reading(site, Path(folder)) as reader,
    ):
        for change in wanted:
            result = _measured(site, change, Clients(writer=writer, reader=reader))
            with results.open("a") as out:
                out.write(json.dumps(result.as_dict()) + "\n")
            print(_line(result), flush=True)
            if result.wrong and not _healed(site, base):
                stopped = True
                break  # the site is left as it is, to be looked at
            if change.back is None and not result.wrong:
                base.write_bytes(site.site_file.read_bytes())
    if not keep and not stopped:
        site.lab.down()
        base.unlink(missing_ok=True)


def _measured(site: Site, change: Change, clients: Clients) -> Result:
    try:
        return measure(site, change, clients)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 -- a change that could not be measured is a wrong one; the others go on
        result = Result(name=change.name, what=change.what)
        result.there.wrong.append(traceback.format_exc())
        return result


def _ready(site: Site, base: Path) -> None:
    """Have a site that is up, whatever an earlier run of the campaign left."""
    fresh = site.lab.status() is None and not site.site_file.exists()
    site.lab.up()
    if fresh or not base.exists():
        if fresh:
            site.edit(dated)
    else:
        site.site_file.write_bytes(base.read_bytes())
    site.keadb("up", "--stack", site.name, "--yes")
    site.keadb("lab", "load", "--name", site.name)
    base.write_bytes(site.site_file.read_bytes())


def dated(data: dict[str, Any]) -> None:
    """Let a new site's certificates be some days old, so that a bumped epoch is not tomorrow's."""
    day = dt.datetime.now(tz=dt.UTC).date() - dt.timedelta(days=3)
    data["tls"] = {"ca_epoch": day.isoformat(), "epoch": day.isoformat()}


def _healed(site: Site, base: Path) -> bool:
    """Put the site file back after a wrong change and say whether one ``up`` makes the site whole again."""
    site.site_file.write_bytes(base.read_bytes())
    done = site.keadb("up", "--stack", site.name, "--yes", check=False)
    if done.returncode:
        print(f"the site is not healthy any more, left as it is:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def _line(result: Result) -> str:
    there, back = result.there, result.back
    parts = [f"up {there.up:.1f} s, gaps {there.write_gap:.2f}/{there.read_gap:.2f} s, {there.restarts}"]
    if back is not None:
        parts.append(f"back {back.up:.1f} s, gaps {back.write_gap:.2f}/{back.read_gap:.2f} s, {back.restarts}")
    verdict = "WRONG: " + "; ".join(result.wrong) if result.wrong else "ok"
    return f"{result.name:20} {'; '.join(parts)} {verdict}"


if __name__ == "__main__":
    sys.exit(main())
