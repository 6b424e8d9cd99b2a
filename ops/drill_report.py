"""A campaign as one HTML file: summary, table, gaps of each fault, the picture of every run, how to do it again.

It holds everything that it shows: no script, and nothing is loaded from elsewhere. It is made from the records (and
what the campaign's folder says was asked for) alone, so it can be made again at any time, and the same records give
the same bytes.
"""

from __future__ import annotations

import functools
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ops import drill_parameters, drill_picture, drill_strips, drill_svg, drill_table
from ops.drill_record import CAMPAIGN_FILE, RUNS_FILE, Campaign, Record, Verdict, campaign_of, records_of

REPORT_FILE = "report.html"
MACHINE_FILE = "machine.txt"
"""One line in the campaign's folder: on what it ran. The drill writes it: the report may be made elsewhere."""
TEMPLATE = "drill_report.html.j2"
ORDER = (Verdict.WRONG, Verdict.ABOVE_TARGET, Verdict.RIGHT)


@dataclass(frozen=True)
class _Cell:
    text: str
    classes: str


def html(
    records: Iterable[Record],
    *,
    campaign: Campaign | None = None,
    machine: str | None = None,
    about: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    ``campaign`` is what was asked for, ``machine`` a line on what it ran, ``about`` a sentence for each fault; what
    is not given is left out. Runs may come in any order, and there may be none yet.
    """
    asked = campaign.faults if campaign else ()
    ordered = sorted(records, key=lambda record: _place(record, asked))
    runs = sorted(ordered, key=lambda record: ORDER.index(record.verdict))
    rows = drill_table.rows(ordered, faults=asked)
    shown = drill_table.columns(rows)
    names = list(dict.fromkeys(row.fault for row in rows))
    pages = [_run(record) for record in runs]
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            title=f"Failover drill of {', '.join(dict.fromkeys(record.stack for record in runs)) or 'nothing yet'}",
            when=_when(runs),
            overall=_overall(runs),
            summary=_summary(runs, rows, campaign, machine),
            headings=[(column.heading, column.numbers) for column in shown],
            table=[[_cell(column, row) for column in shown] for row in rows],
            legend=drill_table.LEGEND,
            unusual=[page for page in pages if page["verdict"] != Verdict.RIGHT],
            faults=[_fault(name, ordered, about or {}) for name in names],
            runs=pages,
            parameters=_parameters(dict.fromkeys(row.parameters for row in rows)),
            repeat=repeat_command(runs, campaign),
            runs_file=RUNS_FILE,
            campaign_file=CAMPAIGN_FILE,
            has_campaign=campaign is not None,
            # The style element's content is not escaped by browsers; it is a constant of ours.
            dark_pictures=Markup(drill_svg.STYLE),  # noqa: S704
        )
    )


def write(folder: Path, records: Iterable[Record], *, about: Mapping[str, str] | None = None) -> Path:
    """Write the page of these records into the campaign's folder and return its path.

    ``campaign.json`` and ``machine.txt`` of the folder are read if they are there; RecordError when the first cannot
    be. The page is replaced in one step.
    """
    asked, on = folder / CAMPAIGN_FILE, folder / MACHINE_FILE
    campaign = campaign_of(asked.read_text(encoding="utf-8"), source=str(asked)) if asked.exists() else None
    machine = on.read_text(encoding="utf-8").strip() if on.exists() else None
    page = html(records, campaign=campaign, machine=machine, about=about)
    path = folder / REPORT_FILE
    _replace(path, page)
    return path


def write_pictures(folder: Path, records: Iterable[Record]) -> list[Path]:
    """Write the picture of each run as a file of its own into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for record in records:
        path = folder / f"{anchor(record)}.svg"
        _replace(path, drill_picture.timeline(record))
        paths.append(path)
    return paths


def read(folder: Path) -> list[Record]:
    """Return the records of a campaign's folder; RecordError for one that cannot be read, OSError without a file."""
    path = folder / RUNS_FILE
    return records_of(path.read_text(encoding="utf-8"), source=str(path))


def anchor(record: Record) -> str:
    """Return a run's name, as a file and on the page: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{record.fault}-{record.parameters}-{record.run}".lower()).strip("-")


def repeat_command(records: Sequence[Record], campaign: Campaign | None) -> str:
    """Return the command that does the same again; from the records alone where the campaign is not known."""
    if campaign is None and not records:
        return "keadb drill --help"
    if campaign is None:
        campaign = Campaign(
            stack=records[0].stack,
            seed=records[0].seed,
            faults=tuple(dict.fromkeys(record.fault for record in records)),
            runs=max(record.run for record in records),
            parameters=tuple(dict.fromkeys(record.parameters for record in records)),
        )
    words = ["keadb", "drill", "--stack", campaign.stack, "--seed", str(campaign.seed), "--runs", str(campaign.runs)]
    if campaign.parameters != (drill_parameters.AS_IT_IS,):
        words += [word for name in campaign.parameters for word in ("--parameters", name)]
    return shlex.join([*words, *(word for name in campaign.faults for word in ("--fault", name))])


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _place(record: Record, faults: Sequence[str]) -> tuple[int, str, int, str, int]:
    """Order by fault as asked for, then by parameter set, ours first."""
    fault = faults.index(record.fault) if record.fault in faults else len(faults)
    names = drill_parameters.NAMES
    chosen = names.index(record.parameters) if record.parameters in names else len(names)
    return fault, record.fault, chosen, record.parameters, record.run


def _when(runs: Sequence[Record]) -> str:
    if not runs:
        return "No run is finished yet."
    started = sorted(record.started for record in runs)
    return f"Runs from {started[0]} to {started[-1]} (their starts, UTC)."


def _overall(runs: Sequence[Record]) -> dict[str, str]:
    counts = {verdict: sum(record.verdict is verdict for record in runs) for verdict in ORDER}
    if not runs:
        return {"kind": "muted", "text": "Nothing to judge yet"}
    worst = next(verdict for verdict in ORDER if counts[verdict])
    said = [f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict]]
    text = f"All {len(runs)} runs are right" if worst is Verdict.RIGHT else f"{len(runs)} runs: {', '.join(said)}"
    return {"kind": drill_picture.VERDICT_KINDS[worst], "text": text}


def _summary(
    runs: Sequence[Record], rows: Sequence[drill_table.Row], campaign: Campaign | None, machine: str | None
) -> list[tuple[str, str]]:
    found = []
    if campaign is not None:
        wanted = len(campaign.faults) * campaign.runs * len(campaign.parameters)
        found.append(("asked for", f"{wanted} runs, {len(runs)} are finished; seed {campaign.seed}"))
    if runs:
        acknowledged = sum(record.write.acknowledged for record in runs)
        loads = [record.load for record in runs]
        longest = max(runs, key=lambda record: max(record.write.longest_at_fault_s, record.write.longest_at_heal_s))
        seconds = max(longest.write.longest_at_fault_s, longest.write.longest_at_heal_s)
        found += [
            ("writes acknowledged", f"{acknowledged}, of which lost: {sum(row.lost for row in rows)}"),
            ("writes by two leaders", str(sum(row.two_leaders for row in rows))),
            ("manual steps", str(sum(row.manual_steps for row in rows))),
            ("longest write gap", f"{seconds:.1f} s ({drill_picture.headline(longest)})"),
            (
                "load at the start of a run",
                f"{min(loads):.1f} to {max(loads):.1f}, median {statistics.median(loads):.1f} (one minute's average)",
            ),
        ]
    found.append(("machine", machine or "not noted"))
    return found


def _cell(column: drill_table.Column, row: drill_table.Row) -> _Cell:
    kinds = {drill_table.STYLES[verdict]: kind for verdict, kind in drill_picture.VERDICT_KINDS.items()}
    kind = kinds.get(column.style(row), "")
    return _Cell(column.text(row), " ".join(filter(None, ["number" if column.numbers else "", kind])))


def _fault(name: str, runs: Sequence[Record], about: Mapping[str, str]) -> dict[str, Any]:
    own = [record for record in runs if record.fault == name]
    return {"name": name, "about": about.get(name, ""), "picture": _picture(drill_strips.strips(own, styled=False))}


def _run(record: Record) -> dict[str, Any]:
    gaps = f"write gap {record.write.longest_at_fault_s:.1f} s"
    if record.phases.heal is not None:
        gaps += f", at the heal {record.write.longest_at_heal_s:.1f} s"
    return {
        "anchor": anchor(record),
        "verdict": record.verdict,
        "kind": drill_picture.VERDICT_KINDS[record.verdict],
        "open": record.verdict is Verdict.WRONG,
        "headline": drill_picture.headline(record),
        "gaps": f"{gaps}, read gap {record.read.longest_s:.1f} s",
        "started": record.started,
        "load": f"{record.load:.1f}",
        "target": record.target,
        "reasons": "; ".join(record.reasons),
        "picture": _picture(drill_picture.timeline(record, styled=False)),
    }


def _picture(source: str) -> Markup:
    """Mark a picture of ours as safe: whatever a record says in it was escaped when it was drawn."""
    return Markup(source)  # noqa: S704


def _parameters(names: Iterable[str]) -> dict[str, Any] | None:
    """Return what the published sets among these say, for comparison; None when there is nothing to compare."""
    sets = [drill_parameters.SETS[name] for name in names if name in drill_parameters.SETS]
    if not sets:
        return None
    return {
        "names": [made.name for made in sets],
        "lines": [(key, [made.values[key] for made in sets]) for key in drill_parameters.KEYS],
        "note": drill_parameters.NOTE,
    }
