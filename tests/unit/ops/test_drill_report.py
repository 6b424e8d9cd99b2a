"""The page over a campaign: what comes first, what is counted, and that nothing in it is loaded or run."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops import drill_report, drill_report_command, drill_strips
from ops.drill_record import CAMPAIGN_FILE, RUNS_FILE, Campaign, Record, RecordError, to_json
from ops.exits import CommandError, Exit
from tests.unit.ops.drill_samples import campaign, power_off, served, switchover, wrong

ASKED = Campaign(
    stack="lab", seed=7, faults=("switchover", "leader-power-off", "leader-frozen"), runs=3, parameters=("site",)
)


class Page(HTMLParser):
    """A page as its reader meets it: text outside pictures by element, and what it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.cells: list[list[str]] = []
        self.details: list[tuple[str, bool, str]] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "details":
            self.details.append((given.get("id") or "", "open" in given, ""))
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        if "summary" in self._open:
            name, is_open, said = self.details[-1]
            self.details[-1] = (name, is_open, " ".join(f"{said} {data}".split()))


def page(records: list[Record], **more: str | None) -> Page:
    return Page(drill_report.html(records, campaign=ASKED, machine=more.get("machine")))


def test_runs_that_are_wrong_come_first_and_are_open() -> None:
    found = page(campaign()).details
    assert [is_open for _, is_open, _ in found] == [True, *[False] * 6]
    said = [text for _, _, text in found]
    assert said[0].startswith("wrong leader-frozen, run 2")
    assert said[1].startswith("above target leader-power-off, run 1, parameters autobase")
    assert [text.split(",")[0] for text in said[2:]] == ["right switchover"] * 2 + ["right leader-power-off"] * 3
    assert len({name for name, _, _ in found}) == 7


def test_the_table_and_the_summary_count() -> None:
    made = page(campaign())
    heading, *rows = made.cells[:5]
    row = dict(zip(heading, rows[2], strict=True))
    assert [cells[0] for cells in rows] == ["switchover", "leader-power-off", "leader-power-off", "leader-frozen"]
    assert [cells[1] for cells in rows] == ["site", "site", "autobase", "site"]
    assert (row["above target"], row["write gap at fault"]) == ("1", "36.4")
    assert "7 runs: 1 wrong, 1 above target, 5 right" in made.source
    assert "9 runs, 7 are finished; seed 7" in made.source
    assert re.search(r"of which lost: 2</dd>", made.source)
    assert "147.0 s (leader-frozen, run 2, parameters site)" in made.source


def test_a_campaign_without_a_fault_says_so() -> None:
    made = page([power_off(), switchover()])
    assert "All 2 runs are right" in made.source
    assert "What was not as it shall be" not in made.source


def test_what_is_wrong_is_told_with_its_reason_and_leads_to_its_run() -> None:
    source = page(campaign()).source
    assert '<a href="#leader-frozen-site-2">' in source
    assert "2 ids lost: 17, 18; 3 writes acknowledged by two leaders" in source


def test_it_says_on_what_and_how_loaded_it_ran() -> None:
    source = page(campaign(), machine="2 cores, 8 GiB").source
    assert "<dt>machine</dt><dd>2 cores, 8 GiB</dd>" in source
    assert "0.5 to 1.5, median 1.3" in source
    assert "2026-11-23T14:00:00Z" in source
    assert "<dt>machine</dt><dd>not noted</dd>" in page(campaign()).source


def test_nothing_is_loaded_and_nothing_runs() -> None:
    made = page([*campaign(), wrong(fault='"><img src=x onerror=alert(1)>', run=9)])
    assert all(re.fullmatch(r"a href=#[a-z0-9-]+", load) for load in made.loads)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(made.tags)
    assert "default-src 'none'" in made.source
    assert "url(" not in made.source
    assert "<script" not in made.source


def test_words_of_a_record_stay_words() -> None:
    hostile = wrong(fault="<b>bold</b>", stack="<i>lab</i>", reasons=("<u>why</u>",), target="<s>host</s>")
    made = page([hostile])
    assert not {"b", "i", "u", "s"} & set(made.tags)
    for word in ("&lt;b&gt;bold", "&lt;i&gt;lab", "&lt;u&gt;why", "&lt;s&gt;host"):
        assert word in made.source


def test_the_same_records_in_any_order_give_the_same_bytes() -> None:
    assert page(campaign()).source == page(list(reversed(campaign()))).source


def test_parameter_sets_are_told_where_they_are_compared() -> None:
    compared = [dataclasses.replace(run, parameters="keadb") for run in campaign() if run.parameters == "site"]
    made = page([*compared, power_off(parameters="autobase"), power_off(parameters="pigsty")])
    found = {cells[0]: cells[1:] for cells in made.cells}
    assert found["key of the site file"] == ["keadb", "autobase", "pigsty"]
    assert found["patroni.ttl"] == ["20", "30", "30"]
    assert found["proxy.check.interval_ms"] == ["500", "3000", "2000"]
    assert "Parameter sets" not in page([power_off()]).source


def test_an_empty_campaign_is_a_page_too() -> None:
    assert "No run is finished yet." in page([]).source
    assert "keadb drill --help" in drill_report.html([])


def test_how_to_do_it_again() -> None:
    begin = "keadb drill --stack lab --seed 7 --runs"
    faults = "--fault switchover --fault leader-power-off --fault leader-frozen"
    assert drill_report.repeat_command([], ASKED) == f"{begin} 3 {faults}"
    compared = dataclasses.replace(ASKED, parameters=("keadb", "pigsty"))
    assert drill_report.repeat_command([], compared) == f"{begin} 3 --parameters keadb --parameters pigsty {faults}"
    alone = drill_report.repeat_command([power_off(run=4, fault="it's $(bad)")], None)
    assert alone == f"{begin} 4 --fault 'it'\"'\"'s $(bad)'"


def test_it_is_written_into_the_campaigns_folder(tmp_path: Path) -> None:
    (tmp_path / CAMPAIGN_FILE).write_text(to_json(ASKED))
    (tmp_path / RUNS_FILE).write_text("".join(to_json(run) + "\n" for run in campaign()))
    (tmp_path / drill_report.MACHINE_FILE).write_text("two cores\n")
    records = drill_report.read(tmp_path)
    path = drill_report.write(tmp_path, records, about={"switchover": "Handed over <as planned>."})
    assert path == tmp_path / "report.html"
    source = path.read_text()
    for said in ("9 runs, 7 are finished", "two cores", "Handed over &lt;as planned&gt;."):
        assert said in source
    assert drill_report.write(tmp_path, records[:1]).read_text() != source
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        CAMPAIGN_FILE,
        drill_report.MACHINE_FILE,
        "report.html",
        RUNS_FILE,
    ]
    (tmp_path / CAMPAIGN_FILE).write_text('{"format": 2}')
    with pytest.raises(RecordError, match=r"campaign\.json: format: given 2, allowed: 1"):
        drill_report.write(tmp_path, records)


def test_pictures_are_files_of_their_own(tmp_path: Path) -> None:
    paths = drill_report.write_pictures(tmp_path / "pictures", campaign())
    assert len({path.name for path in paths}) == 7
    assert paths[0].name == "leader-power-off-site-1.svg"
    assert all(path.read_text().startswith("<svg xmlns=") for path in paths)
    (odd,) = drill_report.write_pictures(tmp_path, [power_off(fault="../../etc/passwd", parameters="A b")])
    assert odd == tmp_path / "etc-passwd-a-b-1.svg"


class TestStrips:
    def dots(self, records: list[Record]) -> list[tuple[float, str, str]]:
        """Return x, colour and words of each dot."""
        source = drill_strips.strips(records)
        found = re.findall(r'<circle class="f-(\w+) s-\w+" cx="([\d.]+)".*?<title>(.*?)</title>', source)
        return [(float(x), kind, said) for kind, x, said in found]

    def test_a_dot_a_run_at_its_seconds_in_the_colour_of_its_verdict(self) -> None:
        slow = next(run for run in campaign() if run.parameters == "autobase")
        runs = [power_off(write=served((10.0, 30.0), heal=40.0)), slow]
        found = [dot for dot in self.dots(runs) if "at the fault" in dot[2]]
        assert [(kind, said) for _, kind, said in found] == [
            ("right", "site: write, at the fault, run 1: 20.00 s, right"),
            ("above", "autobase: write, at the fault, run 1: 36.40 s, above target"),
        ]
        zero = min(x for x, _, said in self.dots(runs) if "at the heal" in said)
        first, second = (x for x, _, _ in found)
        assert (first - zero) / (second - zero) == pytest.approx((20.0 - 0.1) / (36.4 - 0.1), abs=0.01)

    def test_the_target_stands_between_what_is_right_and_what_is_above(self) -> None:
        source = drill_strips.strips(campaign()[:3])
        (line,) = re.findall(r'<line class="s-wrong" x1="([\d.]+)"', source)
        assert max(x for x, _, _ in self.dots(campaign()[:3])) < float(line)
        assert "target of the write gap 27.0 s" in source
        assert "s-wrong" not in re.sub(r"<style>.*?</style>", "", drill_strips.strips([power_off(target_s=None)]))

    def test_what_heals_itself_has_no_lane_for_the_heal(self) -> None:
        assert [lane.name for lane in drill_strips.lanes([switchover()])] == ["write, at the fault", "read"]

    def test_dots_of_equal_runs_do_not_cover_each_other(self) -> None:
        assert drill_strips.levels([1.0, 1.0, 4.0, 9.5, 30.0]) == [0, 1, 2, 0, 0]
        source = drill_strips.strips([switchover(run=n) for n in range(1, 6)])
        centres = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', source)
        assert len(set(centres)) == len(centres) == 10

    def test_without_a_run_there_is_nothing_to_draw(self) -> None:
        with pytest.raises(ValueError, match="no run"):
            drill_strips.strips([])


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A campaign's folder."""
        (tmp_path / CAMPAIGN_FILE).write_text(to_json(ASKED))
        (tmp_path / RUNS_FILE).write_text("".join(to_json(run) + "\n" for run in campaign()))
        return tmp_path

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(drill_report_command.drill_report, words, standalone_mode=False)

    def test_it_shows_the_table_writes_the_page_and_says_where(self, folder: Path) -> None:
        done = self.run(str(folder), "--pictures")
        assert done.return_value == Exit.OK
        assert done.output.splitlines()[-1] == str(folder / "report.html")
        assert "26.1 (21.3)" in done.output
        assert "9 runs, 7 are finished" in (folder / "report.html").read_text()
        assert len(list((folder / "pictures").glob("*.svg"))) == 7

    def test_markdown_goes_to_stdout_alone(self, folder: Path) -> None:
        done = self.run(str(folder), "--markdown")
        lines = done.output.splitlines()
        assert all(line.startswith("|") for line in lines)
        assert [line.split()[1] for line in lines[2:]] == ["switchover", *["leader-power-off"] * 2, "leader-frozen"]
        assert not (folder / "report.html").exists()

    def test_what_cannot_be_read_is_one_clear_error(self, folder: Path) -> None:
        (folder / RUNS_FILE).write_text("{}\n")
        error = self.run(str(folder)).exception
        assert isinstance(error, CommandError)
        assert f"{RUNS_FILE}, line 1: format" in str(error)
        (folder / RUNS_FILE).unlink()
        error = self.run(str(folder)).exception
        assert isinstance(error, CommandError)
        assert str(error) == f"{folder}: there is no {RUNS_FILE}: no drill has finished a run there"
