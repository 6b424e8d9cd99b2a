"""Somebody's edits: refused with the difference, accepted, put back; and what a newer bundle lacks is taken away."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from hostkit import applier, bundle, check, edits, prune
from hostkit.errors import BadInput, Refused
from hostkit.system import Completed
from keadb.bundle import Bundle, File, Packages, Start, Step, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine

PLAIN, SECRET, UNIT = "/etc/a/plain", "/etc/a/secret", "/etc/systemd/system/a.service"


def service(version: int = 1, name: str = "a", **parts: object) -> Bundle:
    """A service with a plain file, one with a secret, and a unit."""
    made = Bundle(
        name=name,
        host=HOST,
        packages=Packages(install=("pkg",), hold=("pkg",)),
        files={
            PLAIN: File(content=f"# top\nspeed: {version}\nend: 1\n"),
            SECRET: File(content=f"user: kea\npassword: '@secret:pw@'\nlimit: {version}\n", mode="0600"),
            UNIT: File(content="[Service]\n"),
        },
        units={"a.service": Unit(restart_on=(PLAIN,))},
    )
    return dataclasses.replace(made, **parts)  # type: ignore[arg-type]  # fields of the table


def apply(machine: Machine, what: Bundle) -> applier.Summary:
    """Apply as the verb does."""
    return applier.apply(machine.ctx, bundle.parse(what.to_json()))


@pytest.fixture
def a(machine: Machine) -> Machine:
    """A host with the service applied."""
    machine.secrets(pw="very-secret-value")
    machine.system.units["a.service"] = FakeUnit(reads=(PLAIN, SECRET), definition=UNIT)
    apply(machine, service())
    machine.system.calls.clear()
    return machine


def edit(path: str, text: str) -> Callable[[Machine], None]:
    return lambda m: m.put(path, text, 0o600 if path == SECRET else 0o644)


def mode(m: Machine) -> None:
    (m.root / PLAIN[1:]).chmod(0o666)


def garble(m: Machine) -> None:
    (m.root / PLAIN[1:]).write_bytes(b"\xff")


def gone(m: Machine) -> None:
    (m.root / PLAIN[1:]).unlink()


EDITS: dict[str, tuple[Callable[[Machine], None], list[str]]] = {
    "content": (edit(PLAIN, "# top\nspeed: 7\nend: 1\n"), [f"{PLAIN}: changed", "-speed: 1", "+speed: 7"]),
    "mode": (mode, [f"{PLAIN}: mode 0666 instead of 0644"]),
    "removed": (gone, [f"{PLAIN}: missing", "+++ (removed)"]),
    "not text": (garble, [f"{PLAIN}: changed"]),
    "terminal codes": (edit(PLAIN, "\x1b[2Jx"), [r"+\x1b[2Jx"]),
    "beside a secret": (
        edit(SECRET, "user: kea\npassword: 'very-secret-value'\nlimit: 9\n"),
        ["-limit: 1", "+limit: 9"],
    ),
    "a secret itself": (
        edit(
            SECRET, "user: kea\npassword: other-secret\nlimit: 1\nrest_token = other-secret\nsee very-secret-value\n"
        ),
        ["+password: '***", "+rest_token = ***", "+see ***"],
    ),
}


@pytest.mark.parametrize("new", [1, 2], ids=["same bundle", "newer bundle"])
@pytest.mark.parametrize(("by_hand", "says"), EDITS.values(), ids=EDITS)
def test_an_edited_file_is_not_written_over(
    new: int, by_hand: Callable[[Machine], None], says: list[str], a: Machine
) -> None:
    """Nothing at all is changed; the message has the difference and the way on, and no secret."""
    by_hand(a)
    before = a.stamps()
    with pytest.raises(Refused) as e:
        apply(a, service(new))
    text = str(e.value)
    assert a.stamps() == before
    assert a.system.calls == []
    assert [line for line in says if line not in text] == []
    assert "other-secret" not in text
    assert "very-secret-value" not in text
    assert f"keadb drift --stack STACK --restore {HOST}:/etc/a/" in text
    assert f"keadb drift --stack STACK --accept {HOST}:/etc/a/" in text
    assert applier.would_refuse(a.ctx, bundle.parse(service(new).to_json())) == text.removeprefix("bundle a: ")


def test_a_long_difference_is_cut_with_a_word_and_told_whole_by_check(a: Machine) -> None:
    """Sixty lines of all files together; the way on still stands at the end."""
    a.put(PLAIN, "".join(f"line {n}\n" for n in range(100)))
    a.put(SECRET, "".join(f"line {n}\n" for n in range(100)), 0o600)
    with pytest.raises(Refused) as e:
        apply(a, service(2))
    lines = str(e.value).splitlines()
    whole = {item["name"]: item["diff"] for item in check.drift(a.ctx)["drift"]}
    assert len(whole[PLAIN]) > 100
    assert "+line 99" in whole[PLAIN]
    left = len(whole[PLAIN]) + len(whole[SECRET]) - 60
    assert lines[-4] == f"... and {left} more lines of differences: 'keadb drift --stack STACK' shows all of them"
    shown = lines[lines.index(f"{HOST}:{PLAIN}: changed") + 1 : lines.index(f"{HOST}:{SECRET}: changed")]
    assert shown == whole[PLAIN][:60]
    assert lines[lines.index(f"{HOST}:{SECRET}: changed") + 1] == lines[-4]


def test_an_edit_that_the_bundle_now_says_too_is_no_reason_to_refuse(a: Machine) -> None:
    """Somebody corrected the site file after the night; the service did not read it yet, so nothing restarts."""
    a.put(PLAIN, "# top\nspeed: 2\nend: 1\n")
    assert SECRET in apply(a, service(2)).files
    assert check.drift(a.ctx)["in_sync"] is True


def test_what_stood_there_before_keadb_is_written_over(machine: Machine) -> None:
    """A distribution's default is nobody's edit."""
    machine.put(PLAIN, "default\n")
    files = {PLAIN: File(content="ours\n")}
    assert apply(machine, Bundle(name="b", host=HOST, files=files)).files == {PLAIN: "updated"}


def test_an_accepted_edit_is_written_over_by_the_next_run_only_while_it_stays_as_seen(a: Machine) -> None:
    """Edited again after that, it is somebody's new edit."""
    a.put(PLAIN, "one\n")
    assert edits.accept(a.ctx, [PLAIN]) == {"changed": True, "accepted": [PLAIN]}
    told = check.drift(a.ctx)
    assert (told["in_sync"], [(d["name"], d["accepted"]) for d in told["drift"]]) == (True, [(PLAIN, True)])
    a.put(PLAIN, "two\n")
    assert check.drift(a.ctx)["in_sync"] is False
    with pytest.raises(Refused, match=r"\+two"):
        apply(a, service(2))
    edits.accept(a.ctx, [PLAIN])
    assert apply(a, service(2)).files[PLAIN] == "updated"
    assert a.text(PLAIN) == "# top\nspeed: 2\nend: 1\n"
    a.put(PLAIN, "two\n")  # the note was used up
    with pytest.raises(Refused):
        apply(a, service(3))


def test_accepting_what_is_as_applied_notes_nothing(a: Machine) -> None:
    """And what is no file of ours, or no file at all, cannot be accepted."""
    before = a.stamps()
    assert edits.accept(a.ctx, [PLAIN]) == {"changed": False, "accepted": []}
    assert a.stamps() == before
    with pytest.raises(BadInput, match="/etc/passwd: given is not a file that an applied bundle places"):
        edits.accept(a.ctx, ["/etc/passwd"])
    gone(a)
    (a.root / PLAIN[1:]).symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="not a plain file"):
        edits.accept(a.ctx, [PLAIN])


def test_a_file_is_put_back_and_its_reader_restarted(a: Machine) -> None:
    """With content, mode and owner; the service reads it again."""
    a.put(PLAIN, "by hand\n", 0o666)
    edits.accept(a.ctx, [PLAIN])
    answer = edits.restore(a.ctx, [PLAIN])
    assert (answer["files"], answer["units"]) == ({PLAIN: "updated"}, {"a.service": "restarted"})
    assert a.text(PLAIN) == "# top\nspeed: 1\nend: 1\n"
    found = check.drift(a.ctx)
    assert (found["in_sync"], found["drift"], found["unfinished"]) == (True, [], [])
    assert not (a.root / "var/lib/keadb/accepted.json").exists()


def test_a_member_of_a_cluster_is_not_restarted_when_its_file_is_put_back(a: Machine) -> None:
    """It is named instead."""
    apply(a, service(units={"a.service": Unit(start=Start.CLUSTER, restart_on=(PLAIN,))}))
    a.put(PLAIN, "by hand\n")
    a.system.calls.clear()
    answer = edits.restore(a.ctx, [PLAIN])
    assert (answer["files"], answer["units"], answer["waiting"]) == ({PLAIN: "updated"}, {}, ["a.service"])
    assert a.system.calls == []


def test_units_and_packages_are_put_back(a: Machine) -> None:
    """Stopped and disabled, removed and no longer held."""
    a.system.units["a.service"].active, a.system.units["a.service"].file = "inactive", "disabled"
    a.system.packages.clear()
    a.system.held.clear()
    assert edits.restore(a.ctx, ["a.service"])["units"] == {"a.service": "started"}
    assert edits.restore(a.ctx, ["pkg"])["packages"] == ["pkg", "pkg (held)"]
    assert check.drift(a.ctx)["drift"] == []


def test_a_stopped_member_of_a_cluster_is_started_as_a_reboot_would(a: Machine) -> None:
    """One that never ran waits for its cluster-level step."""
    apply(a, service(units={"a.service": Unit(start=Start.CLUSTER)}))
    a.system.units["a.service"].active = "inactive"
    assert edits.restore(a.ctx, ["a.service"])["units"] == {"a.service": "started"}
    assert a.system.units["a.service"].active == "active"
    a.system.units["a.service"].active, a.system.units["a.service"].ran = "inactive", False
    with pytest.raises(Refused, match=r"restoring a\.service: it was never started here"):
        edits.restore(a.ctx, ["a.service"])


def test_a_whole_bundle_is_applied_again_as_it_was(a: Machine) -> None:
    """For what its steps bring about; an edited file is refused as ever."""
    marks: list[int] = []

    def mark(_argv: object) -> Completed:
        marks.append(1)
        return Completed(0, "", "")

    a.system.commands.update(
        mark=mark,
        marked=lambda _: Completed(0 if marks else 1, "", ""),
    )
    apply(a, service(steps=(Step(name="mark", run=("mark",), check=("marked",)),)))
    marks.clear()
    assert [d["kind"] for d in check.drift(a.ctx)["drift"]] == ["step"]
    assert applier.apply_again(a.ctx, "a").steps == {"mark": "ran"}
    assert check.drift(a.ctx)["drift"] == []
    a.put(PLAIN, "by hand\n")
    with pytest.raises(Refused):
        applier.apply_again(a.ctx, "a")
    with pytest.raises(BadInput, match="bundle 'none': given is none that is applied"):
        applier.apply_again(a.ctx, "none")


def test_what_cannot_be_put_back_is_refused(a: Machine) -> None:
    """A secret that is another by now; a bundle whose last run did not end; a name of nobody."""
    a.secrets(pw="another-secret-value")
    with pytest.raises(Refused, match="its secrets have changed since it was applied; accept it"):
        edits.restore(a.ctx, [SECRET])
    with pytest.raises(BadInput, match="/etc/none: given is not a file, unit or package"):
        edits.restore(a.ctx, ["/etc/none"])
    a.put(
        "/var/lib/keadb/pending/a.json", '{"sysusers":[],"tmpfiles":[],"daemon_reload":true,"restart":[],"reload":[]}'
    )
    with pytest.raises(Refused, match="the last run of bundle a did not come to its end"):
        edits.restore(a.ctx, [PLAIN])


def test_what_a_newer_bundle_lacks_is_taken_away(a: Machine) -> None:
    """The unit is stopped before its file goes; systemd learns of it; the package stays."""
    files = {SECRET: service().files[SECRET]}
    summary = apply(a, service(files=files, units={}))
    assert summary.files == {PLAIN: "removed", UNIT: "removed"}
    assert summary.units == {"a.service": "stopped"}
    assert a.system.calls == [
        "systemctl stop -- a.service",
        "systemctl disable -- a.service",
        "systemctl daemon-reload",
    ]
    assert not (a.root / PLAIN[1:]).exists()
    assert not (a.root / UNIT[1:]).exists()
    assert a.system.packages == {"pkg": "1.0"}
    assert apply(a, service(files=files, units={})).as_dict()["changed"] is False


def test_a_unit_restarts_when_a_file_that_it_watched_goes(a: Machine) -> None:
    """A drop-in that is no longer there is a change for its reader."""
    files = {path: file for path, file in service().files.items() if path != PLAIN}
    assert apply(a, service(files=files, units={"a.service": Unit()})).units == {"a.service": "restarted"}


def test_what_another_bundle_has_too_stays(a: Machine) -> None:
    """A path and a unit that moved from one bundle to another: at no moment are they gone."""
    moved = service(name="b")
    assert apply(a, moved).as_dict()["files"] == {}
    answer = prune.others(a.ctx, HOST, ["base", "b"])
    assert (answer["bundles"], answer["files"], answer["units"]) == (["a"], {}, {})
    assert a.system.units["a.service"].active == "active"
    assert check.drift(a.ctx)["bundles"] == ["b"]


def test_a_whole_bundle_is_taken_away(a: Machine) -> None:
    """With its record, so that nothing looks for it any more; a second run does nothing."""
    answer = prune.others(a.ctx, HOST, ["base"])
    assert (answer["files"], answer["units"]) == (
        dict.fromkeys([PLAIN, SECRET, UNIT], "removed"),
        {"a.service": "stopped"},
    )
    assert check.drift(a.ctx) == {"bundles": [], "in_sync": True, "drift": [], "unfinished": []}
    before = a.stamps()
    assert prune.others(a.ctx, HOST, ["base"])["changed"] is False
    assert a.stamps() == before


def test_a_running_member_of_a_cluster_is_not_taken_away(a: Machine) -> None:
    """Neither by a newer bundle nor by a newer list; stopped, it may go."""
    apply(a, service(units={"a.service": Unit(start=Start.CLUSTER)}))
    before = a.stamps()
    for go in (lambda: apply(a, service(units={})), lambda: prune.others(a.ctx, HOST, ["base"])):
        with pytest.raises(Refused, match=r"nothing was changed: a.service would go, but runs"):
            go()
    assert prune.would_refuse(a.ctx, HOST, ["base"])
    assert a.stamps() == before
    a.system.units["a.service"].active = "inactive"
    assert prune.would_refuse(a.ctx, HOST, ["base"]) is None
    assert apply(a, service(units={})).units == {"a.service": "disabled"}


def test_an_edited_file_is_not_removed_until_that_is_accepted(a: Machine) -> None:
    """One removed by hand is no reason to refuse."""
    a.put(PLAIN, "by hand\n")
    (a.root / SECRET[1:]).unlink()
    with pytest.raises(Refused, match=r"this would remove 1 file of .*\n.*plain: changed"):
        prune.others(a.ctx, HOST, ["base"])
    edits.accept(a.ctx, [PLAIN])
    assert set(prune.others(a.ctx, HOST, ["base"])["files"]) == {PLAIN, UNIT}
    assert not (a.root / "var/lib/keadb/accepted.json").exists()


def test_an_owner_without_a_name_is_told_by_number(a: Machine) -> None:
    """A user that was removed."""
    apply(a, service(files={**service().files, "/etc/a/own": File(content="x", owner="etcd", group="etcd")}))
    a.system.users["etcd"] = os.geteuid() + 4711
    found = next(d for d in check.drift(a.ctx)["drift"] if d["name"] == "/etc/a/own")
    assert "instead of etcd" in found["is"]
