"""What an apply does, in which order, and that a second one does nothing."""

from __future__ import annotations

import dataclasses
import stat

import pytest

from hostkit import applier, bundle
from hostkit.errors import HostError, Refused
from hostkit.system import Completed
from keadb.bundle import Bundle, File, Packages, Probe, Start, Step, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine

UNIT = "/etc/systemd/system/exporter.service"
CONFIG = "/etc/exporter/config.yml"
HOT = "/etc/exporter/hot.yml"


def exporter(interval: int = 15, hot: str = "a", start: Start = Start.NOW) -> Bundle:
    """A service with everything that a bundle can have."""
    return Bundle(
        name="exporter",
        host=HOST,
        packages=Packages(install=("exporter",), hold=("exporter",), mask=("other.service",)),
        files={
            CONFIG: File(content=f"interval: {interval}\npassword: @secret:exporter_password@\n", mode="0600"),
            HOT: File(content=hot),
            UNIT: File(content=f"# {interval // 100}\n[Service]\n"),
            "/etc/sysusers.d/exporter.conf": File(content="u exporter -\n"),
            "/etc/tmpfiles.d/exporter.conf": File(content="d /var/lib/exporter\n"),
            "/etc/exporter/own.yml": File(content="mine", owner="exporter", group="exporter", mode="0640"),
        },
        units={"exporter.service": Unit(start=start, restart_on=(CONFIG, UNIT), reload_on=(HOT,))},
        steps=(Step(name="mark", run=("mark",), check=("marked",)),),
        probes=(Probe(name="answers", run=("probe",)),),
    )


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine that can take the exporter bundle."""
    machine.secrets(exporter_password="very-secret-value")
    machine.system.units["exporter.service"] = FakeUnit(reads=(CONFIG, UNIT, HOT), definition=UNIT)
    marks: list[int] = []

    def mark(_argv: object) -> Completed:
        marks.append(1)
        return Completed(0, "", "")

    machine.system.commands.update(
        mark=mark,
        marked=lambda _: Completed(0 if marks else 1, "", ""),
        probe=lambda _: Completed(0, "", ""),
    )
    return machine


def apply(machine: Machine, what: Bundle) -> applier.Summary:
    """Apply through the JSON, as the verb does."""
    return applier.apply(machine.ctx, bundle.parse(what.to_json()))


def test_all_that_a_bundle_names_is_brought_into_force_in_order(ready: Machine) -> None:
    """Masks come before packages, users before the files they own, the reload of systemd before units."""
    summary = apply(ready, exporter()).as_dict()
    assert summary["changed"] is True
    assert summary["packages"] == ["exporter", "exporter (held)"]
    assert summary["units"] == {"exporter.service": "started", "other.service": "masked"}
    assert summary["steps"] == {"mark": "ran"}
    assert set(summary["files"].values()) == {"created"}
    assert ready.text(CONFIG) == "interval: 15\npassword: very-secret-value\n"
    assert stat.S_IMODE((ready.root / CONFIG[1:]).stat().st_mode) == 0o600
    verbs = [c.split(" -")[0] if c.startswith("apt-get") else c for c in ready.system.calls]
    assert verbs == [
        "systemctl mask -- other.service",
        "apt-get",
        "apt-get",
        "apt-mark hold exporter",
        "systemd-sysusers /etc/sysusers.d/exporter.conf",
        "systemd-tmpfiles --create /etc/tmpfiles.d/exporter.conf",
        "systemctl daemon-reload",
        "systemctl enable -- exporter.service",
        "systemctl start -- exporter.service",
        "marked",
        "mark",
        "probe",
    ]


def test_a_second_run_touches_nothing(ready: Machine) -> None:
    """No file's time changes, nothing is asked of the machine but reads, checks and probes."""
    apply(ready, exporter())
    before = ready.stamps()
    ready.system.calls.clear()
    assert apply(ready, exporter()).as_dict()["changed"] is False
    assert ready.stamps() == before
    assert ready.system.calls == ["marked", "probe"]


@pytest.mark.parametrize(
    ("change", "did"),
    [
        ({"interval": 30}, "restarted"),
        ({"hot": "b"}, "reloaded"),
        ({"interval": 30, "hot": "b"}, "restarted"),
    ],
)
def test_a_change_does_only_what_it_asks_for(ready: Machine, change: dict[str, object], did: str) -> None:
    """A restart covers a reload; neither reloads systemd when no unit file changed."""
    apply(ready, exporter())
    ready.system.calls.clear()
    summary = apply(ready, exporter(**change))  # type: ignore[arg-type]  # keywords of the table
    assert summary.units == {"exporter.service": did}
    assert [c for c in ready.system.calls if c.startswith("systemctl")] == [
        f"systemctl {did.removesuffix('ed')} -- exporter.service"
    ]


def test_a_changed_unit_file_reloads_systemd_before_the_restart(ready: Machine) -> None:
    """Otherwise the old definition would be started again."""
    apply(ready, exporter())
    ready.system.calls.clear()
    apply(ready, exporter(interval=115))
    assert [c for c in ready.system.calls if c.startswith("systemctl")] == [
        "systemctl daemon-reload",
        "systemctl restart -- exporter.service",
    ]


def test_what_a_package_already_brought_is_not_installed_again(ready: Machine) -> None:
    """Only the missing one is named to apt; another version than the pinned one counts as missing."""
    ready.system.packages.update(there="2.0", pinned="1.0")
    what = Bundle(name="x", host=HOST, packages=Packages(install=("there", "pinned=2.0", "absent")))
    assert apply(ready, what).packages == ["pinned=2.0", "absent"]
    assert next(c for c in ready.system.calls if " install " in c).endswith(" install pinned=2.0 absent")


def test_an_interrupted_installation_is_finished_first(ready: Machine) -> None:
    """The package manager says that something is half configured.

    It cannot finish what was unpacked before what it depends on, and apt mends that only when asked for nothing
    else.
    """
    ready.system.commands["dpkg"] = lambda argv: (
        Completed(0, "half configured", "")
        if "--audit" in argv
        else Completed(1, "", "dependency problems - leaving unconfigured")
    )
    apply(ready, exporter())
    done = [c for c in ready.system.calls if c.startswith(("dpkg", "apt-get"))]
    assert [next(w for w in ("--configure", " update", "--fix-broken", " exporter") if w in c) for c in done] == [
        "--configure",
        " update",
        "--fix-broken",
        " exporter",
    ]
    assert done[2].endswith("--fix-broken install")


def test_the_bundles_own_unit_is_masked_only_while_its_package_is_installed(ready: Machine) -> None:
    """A package must not start it with the distribution's configuration; afterwards it is ours to start."""
    what = dataclasses.replace(
        exporter(), packages=Packages(install=("exporter",), mask=("exporter.service", "postgresql@.service"))
    )
    apply(ready, what)
    calls = ready.system.calls
    assert calls.index("systemctl mask --runtime -- exporter.service") < calls.index(
        "systemctl unmask --runtime -- exporter.service"
    )
    assert "systemctl mask -- postgresql@.service" in calls
    assert ready.system.units["exporter.service"].active == "active"
    assert not (ready.root / "run/systemd/system/exporter.service").is_symlink()
    calls.clear()
    apply(ready, what)
    assert not [c for c in calls if "mask" in c]


def test_a_running_unit_that_becomes_masked_is_stopped(ready: Machine) -> None:
    """The distribution's service runs already and would fight ours."""
    ready.system.units["other.service"] = FakeUnit(active="active", file="enabled")
    apply(ready, exporter())
    assert ready.system.units["other.service"].active == "inactive"


def test_a_unit_of_a_cluster_is_enabled_and_not_started(ready: Machine) -> None:
    """Its cluster-level step does that."""
    assert apply(ready, exporter(start=Start.CLUSTER)).units["exporter.service"] == "enabled"
    assert ready.system.units["exporter.service"].active == "inactive"
    assert ready.system.units["exporter.service"].file == "enabled"


def test_a_unit_of_a_cluster_that_runs_is_reloaded(ready: Machine) -> None:
    """A reload cuts nobody off."""
    apply(ready, exporter(start=Start.CLUSTER))
    ready.system.units["exporter.service"].active = "active"
    assert apply(ready, exporter(hot="b", start=Start.CLUSTER)).units == {"exporter.service": "reloaded"}


def test_a_file_where_a_folder_must_be_is_refused_before_anything_is_changed(ready: Machine) -> None:
    """Half of the bundle would be in force before the disk said so."""
    folder = CONFIG.rpartition("/")[0]
    ready.put(folder, "somebody's notes")
    before = ready.stamps()
    with pytest.raises(
        Refused, match=rf"nothing was changed: {folder} is not a folder, and {folder}/.* would lie in it"
    ):
        apply(ready, exporter())
    assert ready.stamps() == before
    assert ready.system.calls == []


def test_a_stopped_unit_is_started_again(ready: Machine) -> None:
    """Also after a failure, whose start limit is reset first."""
    apply(ready, exporter())
    ready.system.units["exporter.service"].active = "failed"
    ready.system.calls.clear()
    assert apply(ready, exporter()).units == {"exporter.service": "started"}
    assert ready.system.calls[0] == "systemctl reset-failed -- exporter.service"


@pytest.mark.parametrize(("sub", "did"), [("auto-restart", "restarted"), ("start", "started")])
def test_a_unit_on_its_way_is_waited_for_and_one_in_a_crash_loop_restarted(
    ready: Machine, sub: str, did: str
) -> None:
    """PostgreSQL in a long recovery must not be started anew by a second run."""
    apply(ready, exporter())
    ready.system.units["exporter.service"].active = "activating"
    ready.system.units["exporter.service"].sub = sub
    assert apply(ready, exporter()).units == {"exporter.service": did}


def test_a_oneshot_that_ran_is_not_run_again(ready: Machine) -> None:
    """It is inactive for a good reason."""
    ready.system.units["exporter.service"].kind = "oneshot"
    apply(ready, exporter())
    assert apply(ready, exporter()).units == {}


def test_a_unit_that_does_not_start_is_named_with_its_journal_and_no_secret(ready: Machine) -> None:
    """The program printed its password before it died."""
    ready.system.units["exporter.service"].starts = False
    ready.system.journal = "noise\n" * 30 + "bad password very-secret-value in config\n"
    with pytest.raises(HostError, match=r"bundle exporter: unit exporter.service: start: ") as e:
        apply(ready, exporter())
    assert "bad password *** in config" in str(e.value)
    assert "very-secret-value" not in str(e.value)
    assert str(e.value).count("noise") == 14


def test_a_unit_that_dies_right_after_its_start_is_noticed(ready: Machine) -> None:
    """The manager says "started" for a simple service before the program has read its configuration."""
    ready.system.units["exporter.service"].dies = True
    with pytest.raises(HostError, match=r"exporter.service was started but is failed \(dead\) after 1 s"):
        apply(ready, exporter())


def test_a_unit_that_someone_masked_is_not_unmasked(machine: Machine) -> None:
    """The message says how, if that was not meant."""
    machine.system.units["vendor.service"] = FakeUnit()
    machine.system.run(["systemctl", "mask", "vendor.service"], timeout=1)
    with pytest.raises(HostError, match=r"masked on this host; .* systemctl unmask vendor.service"):
        apply(machine, Bundle(name="x", host=HOST, units={"vendor.service": Unit()}))


def test_an_unknown_unit_is_an_error(machine: Machine) -> None:
    """A misspelt name must not pass as done."""
    with pytest.raises(HostError, match=r"unit nope.service cannot be used: systemd says not-found"):
        apply(machine, Bundle(name="x", host=HOST, units={"nope.service": Unit()}))


def test_a_bundle_that_only_defines_directories_leaves_no_plan(machine: Machine) -> None:
    """No unit comes after it to strike the plan off."""
    files = {"/etc/tmpfiles.d/x.conf": File(content="d /var/lib/x\n")}
    apply(machine, Bundle(name="x", host=HOST, files=files))
    assert machine.system.calls == ["systemd-tmpfiles --create /etc/tmpfiles.d/x.conf"]
    assert list((machine.root / "var/lib/keadb/pending").iterdir()) == []


def test_a_failing_step_is_named_and_later_ones_do_not_run(machine: Machine) -> None:
    """The record says that the bundle is not applied."""
    what = Bundle(
        name="x",
        host=HOST,
        steps=(
            Step(name="first", run=("sh", "-c", "echo out of luck >&2; exit 3")),
            Step(name="second", run=("touch", str(machine.root / "second"))),
        ),
    )
    with pytest.raises(HostError, match=r"bundle x: step 'first': .* exit code 3: out of luck"):
        apply(machine, what)
    assert not (machine.root / "second").exists()
    assert not (machine.root / "var/lib/keadb/applied/x.json").exists()


def test_a_step_that_says_so_counts_as_unchanged(machine: Machine) -> None:
    """Cluster-level steps look for themselves what is left to do."""
    what = Bundle(name="x", host=HOST, steps=(Step(name="look", run=("echo", '{"changed": false}')),))
    summary = apply(machine, what).as_dict()
    assert (summary["steps"], summary["changed"]) == ({"look": "unchanged"}, False)


def test_a_failing_probe_is_tried_until_its_time_is_up(ready: Machine) -> None:
    """Then it is named with what it said last; the record is not written."""
    tries: list[int] = []

    def probe(_argv: object) -> Completed:
        tries.append(1)
        return Completed(1, "", f"no answer {len(tries)}")

    ready.system.commands["probe"] = probe
    with pytest.raises(HostError, match=r"probe 'answers' did not hold within 30 s; last: .*no answer 30"):
        apply(ready, exporter())
    assert not (ready.root / "var/lib/keadb/applied/exporter.json").exists()


def test_a_probe_that_holds_later_is_waited_for(ready: Machine) -> None:
    """A service may need a moment."""
    answers = iter([1, 1, 0])
    ready.system.commands["probe"] = lambda _: Completed(next(answers), "", "")
    apply(ready, exporter())


def test_a_missing_secret_is_named_before_anything_is_touched(ready: Machine) -> None:
    """With the bundle that wants it."""
    ready.secrets(other="x")
    with pytest.raises(HostError, match=r"secret 'exporter_password', wanted by .*bundle exporter, is not in this"):
        apply(ready, exporter())
    assert ready.system.calls == []
    assert not (ready.root / "etc").exists()


def test_a_bundle_of_another_host_is_refused(ready: Machine) -> None:
    """An address that was given to another machine."""
    ready.put("/etc/keadb/host", "lab-kea-db-02\n")
    with pytest.raises(Refused, match=r"is for host 'lab-kea-db-01', but this is 'lab-kea-db-02'"):
        apply(ready, exporter())
    assert ready.system.calls == []


def test_a_user_that_nobody_makes_is_an_error_that_names_the_file(machine: Machine) -> None:
    """And not an exception of the user database."""
    what = Bundle(name="x", host=HOST, files={"/etc/x": File(content="", owner="nobody-made-me")})
    with pytest.raises(HostError, match=r"file /etc/x: there is no user 'nobody-made-me'"):
        apply(machine, what)
