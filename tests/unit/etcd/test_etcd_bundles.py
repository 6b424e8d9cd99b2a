"""etcd's bundles: what each host gets, in the words of the programs that read it."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.etcd_cluster import etcd_bundle, etcd_bundles, etcd_form_bundle, rolling_order
from hostkit import etcd_plan
from hostkit.context import Context
from keadb import ciphers
from keadb.bundle import Bundle, Start
from keadb.site import Site, load_site
from tests.unit.core.samples import ha, put, single
from tests.unit.etcd.etcd_fakes import FakeSystem

DB1, DB2, WITNESS = "lab-kea-db-01", "lab-kea-db-02", "lab-kea-witness"
CONFIG = "/etc/etcd/keadb.yml"
UNIT_FILE = "/etc/systemd/system/keadb-etcd.service"
ARCHIVE = {"url": "https://example.com/etcd-v3.5.27-linux-amd64.tar.gz", "sha256": "ab" * 32}


def site(data: dict[str, Any] | None = None) -> Site:
    """Return the sample site."""
    return load_site(data or ha(), source="test")


def staged(host: str = DB1, data: dict[str, Any] | None = None) -> Bundle:
    """Return a staged bundle."""
    made = site(data)
    return etcd_bundle(made, made.hosts[host])


def config(host: str = DB1, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return etcd's configuration as YAML reads it."""
    found: dict[str, Any] = yaml.safe_load(staged(host, data).files[CONFIG].content)
    return found


def ubuntu() -> dict[str, Any]:
    """Return a site on Ubuntu."""
    data = put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", "3.0")
    return put(data, "etcd/archive", ARCHIVE)


class TestConfiguration:
    def test_a_running_member_has_nothing_to_read_when_others_come_and_go(self) -> None:
        found = {k: v for k, v in config(DB1).items() if k.startswith("initial-cluster")}
        assert found == {
            "initial-cluster": f"{DB1}=https://172.30.30.10:2380",
            "initial-cluster-token": "lab",
            "initial-cluster-state": "new",
        }
        assert config(DB1, data=single()) == config(DB1)

    def test_addresses_are_the_nodes_own(self) -> None:
        found = config(DB2)
        assert found["name"] == DB2
        assert found["listen-client-urls"] == "https://172.30.30.11:2379,https://127.0.0.1:2379"
        assert found["advertise-client-urls"] == "https://172.30.30.11:2379"
        assert found["listen-peer-urls"] == found["initial-advertise-peer-urls"] == "https://172.30.30.11:2380"

    def test_neither_port_takes_less_than_what_is_declared(self) -> None:
        found = config()
        assert found["tls-min-version"] == "TLS1.2"
        assert tuple(found["cipher-suites"]) == ciphers.ETCD

    @pytest.mark.parametrize("side", ["client-transport-security", "peer-transport-security"])
    def test_both_ports_ask_for_certificates(self, side: str) -> None:
        tls = staged().tls["etcd"]
        assert config()[side] == {
            "cert-file": tls.cert,
            "key-file": tls.key,
            "trusted-ca-file": tls.ca,
            "client-cert-auth": True,
        }

    @pytest.mark.parametrize(
        ("key", "value", "setting", "expected"),
        [
            ("heartbeat_ms", 500, "heartbeat-interval", 500),
            ("election_ms", 5000, "election-timeout", 5000),
            ("quota_mb", 1024, "quota-backend-bytes", 1024 * 1024 * 1024),
            ("compaction_hours", 2, "auto-compaction-retention", "2h"),
        ],
    )
    def test_a_setting_of_the_site_changes_one_line(
        self, key: str, value: int, setting: str, expected: object
    ) -> None:
        before, after = config(), config(data=put(ha(), f"etcd/{key}", value))
        assert {k for k in after if after[k] != before[k]} == {setting}
        assert after[setting] == expected

    def test_compaction_is_periodic_and_members_are_guarded(self) -> None:
        found = config()
        assert found["auto-compaction-mode"] == "periodic"
        assert found["strict-reconfig-check"] is True

    def test_a_single_site_has_a_cluster_of_one(self) -> None:
        assert config(data=single())["initial-cluster"] == f"{DB1}=https://172.30.30.10:2380"


class TestStaged:
    def test_the_distributions_unit_is_masked_and_ours_belongs_to_the_cluster_steps(self) -> None:
        bundle = staged()
        assert bundle.packages.install == bundle.packages.hold == ("etcd-client", "etcd-server")
        assert bundle.packages.mask == ("etcd.service",)
        assert list(bundle.units) == ["keadb-etcd.service"]
        assert bundle.units["keadb-etcd.service"].start is Start.CLUSTER

    def test_a_restart_is_needed_for_all_that_etcd_reads_once_and_not_for_certificates(self) -> None:
        bundle = staged()
        unit, tls = bundle.units["keadb-etcd.service"], bundle.tls["etcd"]
        assert set(unit.restart_on) == {CONFIG, UNIT_FILE, tls.ca}
        assert unit.reload_on == ()

    def test_keys_belong_to_etcd(self) -> None:
        tls = staged().tls["etcd"]
        assert (tls.owner, tls.group) == ("etcd", "etcd")

    def test_the_unit_starts_no_blank_member_by_itself(self) -> None:
        unit = staged().files[UNIT_FILE].content
        plan = json.loads(form(DB1).files[etcd_plan.PLAN].content)
        assert f"ConditionPathExists=|{plan['data_dir']}/member/wal\n" in unit
        assert f"ConditionPathExists=|{plan['birth_file']}\n" in unit
        assert f"ConditionPathExists=|{plan['rejoin_file']}\n" in unit

    def test_the_unit_runs_our_configuration_and_never_gives_up(self) -> None:
        parsed = configparser.RawConfigParser(strict=False, interpolation=None)
        parsed.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
        parsed.read_string(staged().files[UNIT_FILE].content)
        service = dict(parsed["Service"])
        assert service["ExecStart"] == "/usr/bin/etcd --config-file=${KEADB_ETCD_CONFIG}"
        assert service["Environment"] == f"KEADB_ETCD_CONFIG={CONFIG}"
        # What birth and joining write there wins, and it need not be there.
        plan = json.loads(form(DB1).files[etcd_plan.PLAN].content)
        text = staged().files[UNIT_FILE].content
        assert [line for line in text.splitlines() if line.startswith("EnvironmentFile=")] == [
            f"EnvironmentFile=-{plan['birth_file']}",
            f"EnvironmentFile=-{plan['rejoin_file']}",
        ]
        assert (service["Type"], service["User"]) == ("notify", "etcd")
        # A member that was removed ends with success, and stays down.
        assert (service["Restart"], service["RestartForceExitStatus"]) == ("on-failure", "SIGTERM SIGINT")
        assert service["TimeoutStartSec"] == "infinity"
        assert parsed["Unit"]["StartLimitIntervalSec"] == "0"

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
    def test_systemd_reads_the_units(self, tmp_path: Path) -> None:
        files = {**staged().files, **form(WITNESS).files}
        units = [p for p in files if p.startswith("/etc/systemd/")]
        for unit in units:
            # Its programs are not on this machine.
            text = files[unit].content.replace("ExecStart=/usr/bin/etcd ", "ExecStart=/bin/true ")
            text = text.replace("ExecStart=/usr/lib/keadb/keadb-apply ", "ExecStart=/bin/true ")
            (tmp_path / Path(unit).name).write_text(text)
        paths = [str(tmp_path / Path(unit).name) for unit in units]
        done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
        ours = [line for line in done.stderr.splitlines() if "keadb-etcd" in line]
        assert ours == []

    def test_bundles_hold_no_secret_placeholder_for_etcd_itself(self) -> None:
        assert staged().secrets == ()


def test_a_pinned_version_is_that_of_all_packages_of_etcd() -> None:
    """What is held has no version: it is whatever was installed."""
    packages = staged(data=put(ha(), "packages/etcd", "3.5.16-5")).packages
    assert packages.install == ("etcd-client=3.5.16-5", "etcd-server=3.5.16-5")
    assert packages.hold == ("etcd-client", "etcd-server")


class TestArchive:
    def test_ubuntu_installs_the_named_archive_by_a_guarded_step(self) -> None:
        bundle = staged(data=ubuntu())
        assert bundle.packages.install == ()
        (step,) = bundle.steps
        assert step.check == (*step.run, "--check")
        script = bundle.files[step.run[0]]
        assert ARCHIVE["url"] in script.content
        assert ARCHIVE["sha256"] in script.content
        assert script.mode == "0755"
        assert step.run[0] in bundle.units["keadb-etcd.service"].restart_on
        assert "ExecStart=/usr/lib/keadb/etcd/etcd " in bundle.files[UNIT_FILE].content

    def test_the_script_is_clean_shell(self, tmp_path: Path) -> None:
        bundle = staged(data=ubuntu())
        script = tmp_path / "install"
        script.write_text(bundle.files[bundle.steps[0].run[0]].content)
        shellcheck = Path(sys.executable).parent / "shellcheck"
        done = subprocess.run([str(shellcheck), str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def test_debian_has_no_installer(self) -> None:
        assert staged().steps == ()


def form(host: str, data: dict[str, Any] | None = None) -> Bundle:
    """Return a forming bundle."""
    return etcd_bundles(site(data))[host][1]


class TestForm:
    def test_it_runs_again_when_any_staged_bundle_changes(self) -> None:
        made = site()
        changed = site(put(ha(), "etcd/heartbeat_ms", 300))
        digests = {h: etcd_bundle(made, made.hosts[h]).digest() for h in (DB1, DB2, WITNESS)}
        assert {h: form(DB1).inputs[h] for h in digests} == digests
        assert etcd_bundles(changed)[DB1][1].inputs != form(DB1).inputs

    def test_the_plan_is_what_the_host_side_reads(self, tmp_path: Path) -> None:
        for name in (DB1, DB2, WITNESS):
            root = tmp_path / name
            (root / "etc/keadb/cluster").mkdir(parents=True)
            (root / "etc/keadb/cluster/etcd.json").write_text(form(name).files[etcd_plan.PLAN].content)
            plan = etcd_plan.required(Context(root, FakeSystem()))
            assert (plan.cluster, plan.host, plan.unit) == ("lab", name, "keadb-etcd.service")
            assert [m.name for m in plan.members] == [DB1, DB2, WITNESS]
            assert plan.patroni_prefix == "/service/lab/"
            assert plan.data_dir == config(name)["data-dir"]
            assert plan.peer_url(plan.me) == config(name)["listen-peer-urls"]
            assert plan.tls.cert == staged(name).tls["etcd"].cert

    def test_a_rebuilt_host_has_all_of_them_run_again(self) -> None:
        bumped = etcd_bundles(site(put(ha(), f"hosts/{DB1}/generation", 2)))
        assert all(form(h).inputs != bumped[h][1].inputs for h in bumped)

    def test_the_configuration_can_be_turned_into_one_that_joins(self, tmp_path: Path) -> None:
        (tmp_path / "etc/keadb/cluster").mkdir(parents=True)
        (tmp_path / "etc/keadb/cluster/etcd.json").write_text(form(DB1).files[etcd_plan.PLAN].content)
        plan = etcd_plan.required(Context(tmp_path, FakeSystem()))
        lines = staged().files[plan.config].content.splitlines()
        assert sum(line.startswith("initial-cluster: ") for line in lines) == 1
        assert sum(line.startswith("initial-cluster-state: ") for line in lines) == 1

    def test_one_host_sets_up_users_and_only_it_needs_the_passwords(self) -> None:
        plans = {h: json.loads(form(h).files[etcd_plan.PLAN].content) for h in (DB1, DB2, WITNESS)}
        assert [h for h, plan in plans.items() if plan["sets_up_auth"]] == [WITNESS]
        assert form(WITNESS).secrets == ("etcd_patroni_a_password", "etcd_root_password")
        assert form(DB1).secrets == form(DB2).secrets == ()

    def test_leadership_is_kept_on_the_witness_only(self) -> None:
        assert "keadb-etcd-lead.timer" in form(WITNESS).units
        assert form(DB1).units == {}
        assert form(DB1, single()).units == {}

    def test_a_single_site_sets_up_its_users_itself(self) -> None:
        assert "etcd_root_password" in form(DB1, single()).secrets

    def test_the_step_may_take_as_long_as_all_its_parts(self) -> None:
        plan = json.loads(form(DB1).files[etcd_plan.PLAN].content)
        (step,) = form(DB1).steps
        assert step.run == ("/usr/lib/keadb/keadb-apply", "etcd-form")
        assert step.timeout > plan["birth_seconds"] + plan["health_seconds"]

    def test_the_probe_holds_what_is_declared_against_what_runs(self) -> None:
        (probe,) = form(DB1).probes
        assert probe.run == ("/usr/lib/keadb/keadb-apply", "etcd-probe")

    def test_patronis_login_is_the_one_in_use(self) -> None:
        bundle = etcd_bundles(site(put(ha(), "logins", {"etcd": "b"})))[WITNESS][1]
        plan = json.loads(bundle.files[etcd_plan.PLAN].content)
        assert (plan["patroni_role"], plan["patroni_user"]) == ("patroni", "patroni_b")
        assert plan["patroni_secret"] == "etcd_patroni_b_password"
        assert bundle.secrets == ("etcd_patroni_b_password", "etcd_root_password")


def test_a_bundle_is_the_same_every_time() -> None:
    first, second = site(), site()
    assert [b.to_json() for pair in etcd_bundles(first).values() for b in pair] == [
        b.to_json() for pair in etcd_bundles(second).values() for b in pair
    ]
    made = first.hosts[DB1]
    assert DB1 not in etcd_form_bundle(first, made, {}).inputs


class TestRoll:
    def test_the_witness_restarts_last_wherever_it_stands_in_the_file(self) -> None:
        data = ha()
        first = "lab-a-witness"
        data["hosts"] = {first: data["hosts"].pop(WITNESS), **data["hosts"]}
        assert next(iter(site(data).hosts)) == first
        assert [h.name for h in rolling_order(site(data))] == [DB1, DB2, first]
        assert list(etcd_bundles(site(data))) == [DB1, DB2, first]

    def test_it_runs_again_whenever_members_were_brought_into_force(self) -> None:
        made = etcd_bundles(site())
        for _, _, roll in made.values():
            assert roll.inputs == {h: formed.digest() for h, (_, formed, _) in made.items()}

    def test_a_new_ca_runs_it_again(self) -> None:
        before, after = etcd_bundles(site()), etcd_bundles(site(put(ha(), "tls/ca_epoch", "2026-01-02")))
        assert all(before[h][0] == after[h][0] for h in before)
        assert all(before[h][2].inputs != after[h][2].inputs for h in before)

    def test_who_may_move_leadership_has_the_password_and_nobody_else(self) -> None:
        assert {h: roll.secrets for h, (_, _, roll) in etcd_bundles(site()).items()} == {
            DB1: (),
            DB2: (),
            WITNESS: ("etcd_root_password",),
        }

    def test_it_may_take_as_long_as_all_its_parts(self) -> None:
        plan = json.loads(form(DB1).files[etcd_plan.PLAN].content)
        (step,) = etcd_bundles(site())[DB1][2].steps
        assert step.run == ("/usr/lib/keadb/keadb-apply", "etcd-roll")
        assert step.timeout > 3 * plan["health_seconds"]
