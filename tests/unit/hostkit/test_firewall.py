"""The firewall's verb: rules are loaded, confirmed or taken back, and closed at the end; on a pretended nft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hostkit import check, firewall, nftables, verbs
from hostkit.__main__ import main
from hostkit.bundle import parse
from hostkit.errors import BadInput, HostError
from hostkit.system import Completed
from keadb.bundle import Bundle
from tests.unit.hostkit.fakes import HOST, FakeSystem, Machine

ROOT = Path(__file__).parents[3]
HEAD = "table inet keadb\ndelete table inet keadb\n"


def rules(*peers: str, deploy: str = "1", more: str = "") -> str:
    """Return rules in the form of the template."""
    entries = "".join(f"    {peer}, # somebody\n" for peer in peers)
    body = f"define peers_in = {{\n{entries}}}\ndefine deploy = {{\n    {deploy},\n}}\n{more}"
    return f"{body}\n{HEAD}table inet keadb {{\n}}\n"


@dataclass
class Nft(FakeSystem):
    """A machine with one table, which lists what it was given; ``broken`` in a text is what it does not take."""

    table: str | None = None
    given: str = ""

    def __post_init__(self) -> None:
        self.commands = {
            "nft": self._nft,
            "unshare": lambda _: self._refused() or Completed(0, self._listing(), ""),
            "systemd-run": lambda _: Completed(0, "", ""),
        }

    def run(self, argv: Sequence[str], **how: Any) -> Completed:
        self.given = how.get("input") or ""
        return super().run(argv, **how)

    def _systemctl(self, argv: Sequence[str]) -> Completed:
        return Completed(0, "", "") if argv[-1].startswith(firewall.TIMER) else super()._systemctl(argv)

    def _listing(self) -> str:
        return self.given.replace(HEAD, "")

    def _refused(self) -> Completed | None:
        return Completed(1, "", "stdin:1:1-6: Error: syntax error") if "broken" in self.given else None

    def _nft(self, argv: Sequence[str]) -> Completed:
        if "list" in argv:
            return Completed(1, "", "No such file") if self.table is None else Completed(0, self.table, "")
        if refused := self._refused():
            return refused
        self.table = self._listing() or None
        return Completed(0, "", "")


@pytest.fixture
def nft(tmp_path: Path) -> Machine:
    """A machine that never had a firewall, with rules that wait to be loaded."""
    root = tmp_path / "root"
    root.mkdir()
    made = Machine(root, Nft(root))
    made.put(firewall.RULES, rules("10 . 5432"))
    return made


def system(machine: Machine) -> Nft:
    assert isinstance(machine.system, Nft)
    return machine.system


def say(machine: Machine, *words: str) -> dict[str, Any]:
    """Run the verb; return its answer."""
    verb: dict[str, Callable[..., dict[str, Any]]] = {
        "load": lambda ctx: firewall.load(ctx, 40),
        "confirm": firewall.confirm,
        "close": firewall.close,
        "take-back": firewall.take_back,
    }
    return [verb[word](machine.ctx) for word in words][-1]


def timers(machine: Machine) -> list[str]:
    """Return what was done to the timer, in order."""
    return [
        "start" if call.startswith("systemd-run") else "stop"
        for call in machine.system.calls
        if firewall.TIMER in call
    ]


def declare(machine: Machine, text: str) -> str:
    machine.put(firewall.RULES, text)
    return text


def in_force(machine: Machine) -> str | None:
    return system(machine).table


class TestFirstRules:
    def test_loaded_with_a_timer_that_starts_before_them(self, nft: Machine) -> None:
        assert say(nft, "load")["changed"]
        calls = nft.system.calls
        assert in_force(nft) == nftables.again(rules("10 . 5432")).replace(HEAD, "")
        (start,) = [n for n, call in enumerate(calls) if call.startswith("systemd-run")]
        assert "--on-active=40s" in calls[start]
        assert calls[start].endswith("/usr/lib/keadb/keadb-apply firewall take-back")
        assert start < next(n for n, call in enumerate(calls) if call == "nft -f -")
        assert not (nft.root / firewall.CONFIRMED[1:]).exists()

    def test_confirmed_they_are_what_the_host_starts_with(self, nft: Machine) -> None:
        assert say(nft, "load", "confirm") == {"changed": True}
        assert nft.text(firewall.CONFIRMED) == rules("10 . 5432")
        assert (nft.root / firewall.CONFIRMED[1:]).stat().st_mode & 0o777 == 0o600
        assert timers(nft)[-1] == "stop"
        assert say(nft, "take-back") == {"changed": False}
        assert in_force(nft) is not None

    def test_unconfirmed_the_host_is_as_before_and_the_next_step_says_why(self, nft: Machine) -> None:
        say(nft, "load")
        assert say(nft, "take-back") == {"changed": True}
        assert in_force(nft) is None
        with pytest.raises(HostError, match=r"were taken back.*network\.deploy in the site file must name"):
            say(nft, "confirm")
        with pytest.raises(HostError, match=r"firewall\.nft is missing"):
            say(nft, "close")
        assert say(nft, "load", "confirm", "close") is not None
        assert in_force(nft) is not None

    def test_a_second_run_changes_nothing(self, nft: Machine) -> None:
        say(nft, "load", "confirm", "close")
        before, calls = nft.stamps(), len(nft.system.calls)
        for verb in ("load", "confirm", "close"):
            assert say(nft, verb) == {"changed": False}, verb
        assert nft.stamps() == before
        assert not [c for c in nft.system.calls[calls:] if c.startswith(("nft -f", "systemd-run"))]


class TestNewRules:
    @pytest.fixture(autouse=True)
    def _settled(self, nft: Machine) -> None:
        say(nft, "load", "confirm", "close")
        self.before = in_force(nft)

    def test_taken_back_unless_confirmed(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        assert in_force(nft) != self.before
        say(nft, "take-back")
        assert in_force(nft) == self.before
        assert nft.text(firewall.CONFIRMED) == rules("10 . 5432")

    def test_edits_of_the_table_by_hand_come_back_too(self, nft: Machine) -> None:
        system(nft).table = by_hand = f"{self.before}tcp dport 22 accept\n"
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        say(nft, "take-back")
        assert in_force(nft) == by_hand

    def test_rules_that_nft_does_not_take_leave_those_of_before(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", more="broken\n"))
        with pytest.raises(HostError, match=r"does not take the rules, nothing was changed: .*syntax error"):
            say(nft, "load")
        assert in_force(nft) == self.before
        assert timers(nft)[-1:] != ["start"]
        with pytest.raises(HostError, match="taken back"):
            say(nft, "confirm")

    def test_a_second_load_before_the_confirmation_goes_back_to_what_was_confirmed(self, nft: Machine) -> None:
        for deploy in ("98", "99"):
            declare(nft, rules("10 . 5432", deploy=deploy))
            say(nft, "load")
        say(nft, "take-back")
        assert in_force(nft) == self.before

    def test_a_site_file_put_back_before_the_confirmation(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        declare(nft, rules("10 . 5432"))
        assert say(nft, "load") == {"changed": True}
        assert in_force(nft) == self.before
        assert say(nft, "take-back") == {"changed": False}
        assert say(nft, "confirm") == {"changed": False}

    def test_the_timer_that_fires_while_it_is_confirmed_finds_nothing_to_do(self, nft: Machine) -> None:
        declared = declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        nft.put(firewall.CONFIRMED, declared)  # confirmed, and killed before the rest
        assert say(nft, "take-back") == {"changed": False}
        assert say(nft, "confirm") == {"changed": True}
        assert timers(nft)[-1] == "stop"

    def test_rules_changed_by_hand_in_between_are_not_confirmed(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        system(nft).table = "something else"
        with pytest.raises(HostError, match="are not those that were loaded"):
            say(nft, "confirm")
        assert nft.text(firewall.CONFIRMED) == rules("10 . 5432")

    def test_a_host_without_a_way_back_is_opened(self, nft: Machine) -> None:
        """Rules of before that do not load any more (another nft by now): open can be mended, cut off cannot."""
        system(nft).table = "broken"
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load")
        with pytest.raises(HostError):
            say(nft, "take-back")
        assert in_force(nft) is None


class TestPeersThatChange:
    @pytest.fixture(autouse=True)
    def _settled(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", "11 . 5432"))
        say(nft, "load", "confirm", "close")

    def test_what_was_declared_before_stays_open_until_the_end(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", "12 . 5432"))
        assert say(nft, "load")["open until the end of the run"] == ["11 . 5432"]
        say(nft, "confirm")
        for peer in ("10", "11", "12"):
            assert f"{peer} . 5432" in str(in_force(nft))
        assert say(nft, "close") == {"changed": True, "closed": ["11 . 5432"]}
        assert "11 . 5432" not in str(in_force(nft))
        assert nft.text(firewall.CONFIRMED) == nft.text(firewall.RULES)

    def test_a_restart_in_between_still_has_the_old_openings(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", "12 . 5432"))
        say(nft, "load", "confirm")
        confirmed = nft.text(firewall.CONFIRMED)
        assert "11 . 5432" in confirmed
        system(nft).given = confirmed
        system(nft)._nft(["nft", "-f"])
        assert say(nft, "load") == {"changed": False}
        assert say(nft, "close")["closed"] == ["11 . 5432"]

    def test_two_changes_before_a_run_comes_to_its_end(self, nft: Machine) -> None:
        declare(nft, rules("10 . 5432", "12 . 5432"))
        say(nft, "load", "confirm")
        declare(nft, rules("10 . 5432", "13 . 5432"))
        assert say(nft, "load")["open until the end of the run"] == ["11 . 5432", "12 . 5432"]
        say(nft, "confirm", "close")
        assert in_force(nft) == rules("10 . 5432", "13 . 5432").replace(HEAD, "")

    def test_who_may_come_by_ssh_is_not_widened(self, nft: Machine) -> None:
        """Else a wrong deploy source would be confirmed by way of the old one."""
        declare(nft, rules("10 . 5432", "11 . 5432", deploy="99"))
        assert say(nft, "load")["open until the end of the run"] == []
        assert "    1," not in str(in_force(nft))

    def test_closing_never_does_more_than_taking_away(self, nft: Machine) -> None:
        """It runs without a timer: only what was confirmed, or less."""
        declare(nft, rules("10 . 5432", deploy="99"))
        with pytest.raises(HostError, match="were never confirmed"):
            say(nft, "close")
        say(nft, "load")
        with pytest.raises(HostError, match="were never confirmed"):
            say(nft, "close")

    def test_a_table_changed_by_hand_is_put_back(self, nft: Machine) -> None:
        before = in_force(nft)
        for by_hand in (None, f"{before} tcp dport 9 accept\n"):
            system(nft).table = by_hand
            assert say(nft, "close") == {"changed": True, "closed": []}
            assert in_force(nft) == before


def drift(machine: Machine) -> list[tuple[str, str, str]]:
    return [(d["bundle"], d["name"], d["is"]) for d in check.drift(machine.ctx)["drift"]]


def _record(machine: Machine, *names: str) -> None:
    from hostkit import applied

    for name in names:
        applied.write(machine.ctx, parse(Bundle(name=name, host=HOST).to_json()), [])


class TestDrift:
    @pytest.fixture(autouse=True)
    def _settled(self, nft: Machine) -> None:
        say(nft, "load", "confirm", "close")
        _record(nft, "firewall", "firewall-close")

    def test_a_rule_added_by_hand_is_shown(self, nft: Machine) -> None:
        assert drift(nft) == []
        system(nft).table = f"{in_force(nft)}tcp dport 9 accept\n"
        assert drift(nft) == [("firewall-close", "table inet keadb", "changed")]
        (item,) = check.drift(nft.ctx)["drift"]
        assert "+tcp dport 9 accept" in item["diff"]

    def test_an_open_host_and_other_rules_for_the_next_start(self, nft: Machine) -> None:
        system(nft).table = None
        nft.put(firewall.CONFIRMED, "# nothing\n")
        name = "table inet keadb"
        assert [(n, what.split(":")[0]) for _, n, what in drift(nft)] == [
            (name, "not in force"),
            (firewall.CONFIRMED, "other rules than those declared"),
        ]

    def test_nobody_looks_before_the_rules_were_closed(self, nft: Machine) -> None:
        (nft.root / "var/lib/keadb/applied/firewall-close.json").unlink()
        system(nft).table = None
        assert drift(nft) == []

    def test_what_cannot_be_compared_is_said(self, nft: Machine) -> None:
        nft.put(firewall.RULES, "broken\n")
        assert [what for *_, what in drift(nft) if what.startswith("could not be compared: nft does not take")]

    def test_rules_that_were_taken_back_are_told_as_unfinished(
        self, nft: Machine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """So that the look before 'up' has them loaded again."""

        def digest() -> str:
            assert verbs.version(nft.ctx, []) == 0
            return str(json.loads(capsys.readouterr().out)["digests"]["firewall"])

        assert digest() != "unfinished"
        declare(nft, rules("10 . 5432", deploy="99"))
        say(nft, "load", "take-back")
        assert digest() == "unfinished"
        say(nft, "load", "confirm")
        assert digest() != "unfinished"


@pytest.mark.parametrize(
    "words", [[], ["open"], ["load"], ["load", "0"], ["load", "601"], ["load", "x"], ["confirm", "now"]]
)
def test_what_is_not_a_word_of_the_verb(nft: Machine, words: list[str]) -> None:
    with pytest.raises(BadInput, match=r"given .*, allowed is 'load SECONDS' \(1 to 600\) or one of confirm, close"):
        firewall.main(nft.ctx, words)
    assert nft.system.calls == []


REAL = """
import json, pathlib, sys
from hostkit import firewall, nftables
from hostkit.context import Context
from hostkit.system import RealSystem
rules = sys.stdin.read()
ctx = Context(pathlib.Path(sys.argv[1]), RealSystem())
def other(): return RealSystem().run(["nft", "list", "tables"], timeout=9).stdout.split()
RealSystem().run(["nft", "-f", "-"], timeout=9, input="table inet theirs { }")
nftables.load(ctx, rules)
first = nftables.live(ctx)
same = first == nftables.listed(ctx, rules)
wider = rules.replace("define vip = {", "define vip = {\\n    192.0.2.1,")
nftables.load(ctx, wider)
changed = nftables.live(ctx) != first
nftables.load(ctx, nftables.again(first))
back = nftables.live(ctx) == first
try:
    nftables.load(ctx, rules + "add rule inet keadb none accept\\n")
    atomic = False
except Exception:
    atomic = nftables.live(ctx) == first
theirs = "theirs" in other()
nftables.remove(ctx)
print(json.dumps([same, changed, back, atomic, theirs, other()]))
"""


def test_the_real_nft(tmp_path: Path) -> None:
    """Listed, compared, changed, brought back, all or nothing; another table stays as it is."""
    nft = [folder for folder in ("/usr/sbin/nft", "/sbin/nft") if Path(folder).exists()]
    if not nft or os.geteuid() != 0:
        pytest.skip("needs root (a network namespace) and the package nftables")
    from tests.unit.firewall import test_firewall_rules as samples

    text = samples.rules(samples.everything(), samples.DB1)
    argv = ["unshare", "--net", "--", sys.executable, "-c", REAL, str(tmp_path)]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, True, True, True, ["table", "inet", "theirs"]]


def test_the_command_line_prints_one_object(nft: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert firewall.main(nft.ctx, ["load", "40"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 40
    assert main(["--root", str(nft.root), "firewall", "sideways"]) == BadInput.exit_code
