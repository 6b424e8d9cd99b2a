"""The cluster's bundles: what each host gets, in the words of the programs that read it."""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import patroni_settings as settings
from components import postgres_cluster as pg
from hostkit import bundle as host_bundle
from hostkit import patroni_plan
from hostkit.__main__ import verb
from hostkit.context import Context
from hostkit.patroni_parameters import NEED_RESTART
from keadb import ciphers
from keadb.bundle import SECRET_PLACEHOLDER, Bundle, Start
from keadb.problems import SiteError
from keadb.site import Site, load_site
from tests.unit.core.samples import ROOT, STACKS, ha, put, single
from tests.unit.patroni.patroni_fakes import DB1, DB2, WITNESS, FakeSystem

SNAPSHOTS = Path(__file__).with_name("snapshots")


def site_of(data: dict[str, Any]) -> Site:
    """Return a sample's site."""
    return load_site(data, source="test")


def us3() -> Site:
    """Return a real site's file."""
    document = yaml.safe_load((ROOT / "Pulumi.us3.yaml").read_text())
    return load_site(document["config"]["keadb:site"], source="us3")


def files(site: Site) -> dict[str, str]:
    """Return every file of every host's bundles of the cluster."""
    found: dict[str, str] = {}
    for host, bundles in pg.patroni_bundles(site).items():
        for bundle in bundles:
            found |= {f"{host}:{path}": file.content for path, file in bundle.files.items()}
    return found


def changed_lines(before: Site, after: Site) -> dict[str, list[str]]:
    """Return the removed and added lines of each file that differs."""
    old, new = files(before), files(after)
    assert old.keys() == new.keys()
    lines = {}
    for path in old:
        diff = difflib.unified_diff(old[path].splitlines(), new[path].splitlines(), lineterm="", n=0)
        kept = [line for line in diff if line[0] in "+-" and line[:3] not in {"+++", "---"}]
        if kept:
            lines[path] = [line[0] + line[1:].strip() for line in kept]
    return lines


def config(site: Site, host: str) -> dict[str, Any]:
    """Return Patroni's configuration as it reads it."""
    found: dict[str, Any] = yaml.safe_load(pg.patroni_bundle(site, site.hosts[host]).files[pg.CONFIG].content)
    return found


def every_bundle(site: Site) -> list[Bundle]:
    """Return all bundles of the cluster."""
    return [b for bundles in pg.patroni_bundles(site).values() for b in bundles]


SITES: dict[str, Callable[[], Site]] = {"us3": us3, "lab": lambda: site_of(ha()), "single": lambda: site_of(single())}


class TestSnapshots:
    """Every byte of three sites: a change of a template or default shows here. Renew them by deleting the file."""

    @pytest.mark.parametrize("name", SITES)
    def test_every_file_is_as_it_was(self, name: str) -> None:
        text = "".join(f"##### {path}\n{content}\n" for path, content in files(SITES[name]()).items())
        kept = SNAPSHOTS / f"{name}.txt"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(text)
            pytest.fail(f"{kept.name} was missing and has been written: look at it, commit it, run again")
        assert text == kept.read_text()


class TestDifferences:
    def test_a_parameter_shows_as_exactly_its_line(self) -> None:
        before = site_of(put(ha(), "postgresql/parameters/random_page_cost", 1.1))
        after = site_of(put(ha(), "postgresql/parameters/random_page_cost", 1.3))
        assert changed_lines(before, after) == {
            f"{WITNESS}:{pg.PLAN}": ['-"random_page_cost": 1.1,', '+"random_page_cost": 1.3,']
        }

    def test_a_timing_shows_as_exactly_its_line(self) -> None:
        before, after = site_of(ha()), site_of(put(ha(), "patroni/loop_wait", 4))
        assert changed_lines(before, after) == {f"{WITNESS}:{pg.PLAN}": ['-"loop_wait": 3,', '+"loop_wait": 4,']}

    def test_a_client_shows_as_its_access_rules_on_both_nodes(self) -> None:
        before, after = site_of(ha()), site_of(put(ha(), "network/clients", ["172.30.30.1"]))
        rules = [
            '+- "hostssl kea         +kea_owner 172.30.30.1/32     scram-sha-256"',
            '+- "hostssl kea         +kea_read  172.30.30.1/32     scram-sha-256"',
        ]
        assert changed_lines(before, after) == {f"{host}:{pg.CONFIG}": rules for host in (DB1, DB2)}

    def test_a_changed_setting_runs_only_its_own_bundle_and_the_convergence_again(self) -> None:
        before = {(b.host, b.name): b.digest() for b in every_bundle(site_of(ha()))}
        after = {(b.host, b.name): b.digest() for b in every_bundle(site_of(put(ha(), "patroni/loop_wait", 4)))}
        assert {name for name in before if before[name] != after[name]} == {
            (WITNESS, "patroni-settings"),
            (WITNESS, "patroni-converge"),
        }


class TestStaged:
    def test_nothing_is_started_and_postgresql_of_the_distribution_stays_out(self) -> None:
        bundle = pg.patroni_bundle(site_of(ha()), site_of(ha()).hosts[DB1])
        assert [unit.start for unit in bundle.units.values()] == [Start.CLUSTER]
        assert {"postgresql.service", "patroni.service"} == set(bundle.packages.mask)
        assert set(bundle.packages.hold) == set(bundle.packages.install)

    def test_pinned_versions_are_those_of_the_packages_built_together(self) -> None:
        pins = {"patroni": "4.0.8-1", "postgresql": "15.15-1"}
        site = site_of(put(ha(), "packages", pins))
        packages = pg.patroni_bundle(site, site.hosts[DB1]).packages
        assert packages.install == (
            *("postgresql-15=15.15-1", "postgresql-client-15=15.15-1"),
            *("patroni=4.0.8-1", "python3-etcd", "python3-psycopg2"),
        )
        assert packages.hold == tuple(name.partition("=")[0] for name in packages.install)

    def test_a_pin_changes_nothing_else(self) -> None:
        """No file: the restart that it takes is not one for a file."""
        before, after = site_of(ha()), site_of(put(ha(), "packages/patroni", "4.0.8-1"))
        assert changed_lines(before, after) == {}

    def test_the_cluster_of_the_distribution_is_prevented_before_its_packages_come(self) -> None:
        first, second = pg.patroni_bundles(site_of(ha()))[DB1][:2]
        assert first.packages.install == ()
        assert "create_main_cluster = false" in "".join(f.content for f in first.files.values())
        assert "postgresql-15" in second.packages.install

    @pytest.mark.skipif(not shutil.which("pg_conftool"), reason="no postgresql-common on this machine")
    def test_the_distribution_reads_it(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (path,) = pg.postgresql_prepare_bundle(site_of(ha()), site_of(ha()).hosts[DB1]).files.values()
        (tmp_path / "d/keadb.conf").write_text(path.content)
        (tmp_path / "createcluster.conf").write_text(f"include_dir '{tmp_path}/d'\n")
        argv = ["pg_conftool", str(tmp_path / "createcluster.conf"), "show", "-bs", "create_main_cluster"]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "off"

    def test_restart_is_only_for_what_patroni_reads_at_its_start(self) -> None:
        unit = pg.patroni_bundle(site_of(ha()), site_of(ha()).hosts[DB1]).units[pg.UNIT]
        assert set(unit.restart_on) == {pg.DROP_IN, pg.READ_AT_START}
        assert pg.CONFIG in unit.reload_on
        assert "/etc/patroni/tls/postgres.crt" in unit.reload_on

    def test_what_is_read_at_start_is_what_the_configuration_says(self) -> None:
        made = site_of(ha())
        start = json.loads(pg.patroni_bundle(made, made.hosts[DB1]).files[pg.READ_AT_START].content)
        found = config(made, DB1)
        assert start == {
            **{key: found[key] for key in ("scope", "name", "namespace")},
            "data_dir": found["postgresql"]["data_dir"],
        }

    def test_the_configuration_is_not_for_others_to_read(self) -> None:
        file = pg.patroni_bundle(site_of(ha()), site_of(ha()).hosts[DB1]).files[pg.CONFIG]
        assert (file.owner, file.group, file.mode) == ("root", "postgres", "0640")
        assert SECRET_PLACEHOLDER.findall(file.content) == ["patroni_rest_password", "etcd_patroni_a_password"]

    def test_no_settings_stand_in_the_node_s_file(self) -> None:
        """They would be inert after the birth, and yet show as a change."""
        found = config(site_of(ha()), DB1)
        assert found["bootstrap"]["dcs"] == {}
        assert "parameters" not in found["postgresql"]

    def test_the_first_database_host_is_preferred(self) -> None:
        made = site_of(ha())
        assert [config(made, h)["tags"]["failover_priority"] for h in (DB1, DB2)] == [100, 90]

    def test_logins_between_nodes_are_certificates_without_a_password(self) -> None:
        logins = config(site_of(ha()), DB1)["postgresql"]["authentication"]
        assert logins["superuser"] == {"username": "postgres"}
        for name in ("replication", "rewind"):
            assert logins[name]["sslmode"] == "verify-full"
            assert "password" not in logins[name]

    def test_only_the_site_s_own_hosts_may_change_anything_over_rest(self) -> None:
        rest = config(site_of(ha()), DB1)["restapi"]
        assert rest["verify_client"] == "required"
        assert rest["ciphers"] == ciphers.OPENSSL
        assert rest["allowlist"] == ["172.30.30.10", "172.30.30.11", "172.30.30.12"]

    @pytest.mark.skipif(not shutil.which("patroni"), reason="no Patroni on this machine")
    def test_patroni_takes_the_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yml"
        path.write_text(pg.patroni_bundle(us3(), us3().database_hosts[0]).files[pg.CONFIG].content)
        done = subprocess.run(
            ["patroni", "--validate-config", "--ignore-listen-port", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        unexpected = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if "didn't pass" in line
            and not any(word in line for word in ("reachable", "listen", "bin_dir", "assign"))
        ]
        assert unexpected == []


class TestAccessRules:
    def rules(self, data: dict[str, Any]) -> list[list[str]]:
        """Return pg_hba.conf split into fields."""
        return [rule.split() for rule in settings.access_rules(site_of(data))]

    def test_no_rule_lets_anybody_in_without_tls_or_a_proof(self) -> None:
        for rule in self.rules(put(ha(), "network/clients", ["172.30.30.1", "172.30.40.0/26"])):
            assert rule[-1] in {"peer", "cert", "scram-sha-256", "reject"}
            assert rule[0] in {"local", "hostssl"} or rule[-1] == "reject"
            assert rule[-1] != "peer" or rule[:3] == ["local", "all", "postgres"]

    def test_what_is_not_named_is_rejected_in_the_end(self) -> None:
        assert self.rules(ha())[-1] == ["host", "all", "all", "all", "reject"]

    def test_the_superuser_has_no_way_over_the_network(self) -> None:
        assert [r for r in self.rules(ha()) if r[0] != "local" and r[2] in {"postgres", "all"}] == [
            ["host", "all", "all", "all", "reject"]
        ]

    def test_owners_come_from_proxies_and_poolers_the_control_host_and_named_clients_only(self) -> None:
        rules = self.rules(put(ha(), "network/clients", ["172.30.40.0/26"]))
        assert [r[3] for r in rules if r[2] == "+kea_owner"] == [
            "127.0.0.1/32",
            "172.30.30.10/32",
            "172.30.30.11/32",
            "172.30.30.12/32",
            "172.30.40.0/26",
        ]

    def test_kea_s_servers_come_by_the_proxies_only(self) -> None:
        """PostgreSQL sees them as a node or, behind a pooler, as loopback; the owner of the schema as well."""
        rules = self.rules(put(ha(), "kea/servers", {"lab-kea": "172.30.30.2"}))
        assert not [rule for rule in rules if "172.30.30.2/32" in rule]
        for address in ("127.0.0.1/32", "172.30.30.10/32", "172.30.30.11/32"):
            for role in ("+kea_read", "+kea_owner"):
                assert ["hostssl", "kea", role, address, "scram-sha-256"] in rules
        assert [rule for rule in rules if "pooler" in rule] == [["hostssl", "kea", "pooler", "127.0.0.1/32", "cert"]]
        assert not [r for r in rules if r[2] == "+kea_owner" and r[3].startswith("172.30.30.2/")]

    def test_each_node_may_replicate_from_each_and_from_its_own_loopback(self) -> None:
        sources = [r[3] for r in self.rules(ha()) if r[1] == "replication"]
        assert sources == ["127.0.0.1/32", "::1/128", "172.30.30.10/32", "172.30.30.11/32"]

    def test_a_source_named_twice_gives_one_rule(self) -> None:
        rules = self.rules(put(ha(), "network/clients", ["172.30.30.12"]))
        assert len({tuple(r) for r in rules}) == len(rules)


class TestSettings:
    def test_the_measured_set(self) -> None:
        found = settings.dynamic_config(site_of(ha()))
        timings = {k: v for k, v in found.items() if k != "postgresql"}
        assert timings == {
            "ttl": 20,
            "loop_wait": 3,
            "retry_timeout": 5,
            "primary_start_timeout": 10,
            "maximum_lag_on_failover": 64 * 1024 * 1024,
            "synchronous_mode": True,
            "synchronous_mode_strict": False,
            "failsafe_mode": True,
        }
        assert found["postgresql"]["remove_data_directory_on_rewind_failure"] is False
        assert found["postgresql"]["remove_data_directory_on_diverged_timelines"] is False

    def test_a_single_host_waits_for_nobody(self) -> None:
        plan = json.loads(pg.patroni_settings_bundle(site_of(single())).files[pg.PLAN].content)
        assert plan["config"]["synchronous_mode"] is False
        assert plan["wants_sync_standby"] is False
        assert plan["members"] == [{"name": DB1, "address": "172.30.30.10"}]

    def test_single_and_ha_differ_in_no_parameter_that_needs_a_restart(self) -> None:
        """Growing from one to the other must not restart PostgreSQL."""
        one = settings.postgresql_parameters(site_of(single()))
        two = settings.postgresql_parameters(site_of(ha()))
        assert {name for name in NEED_RESTART if one.get(name) != two.get(name)} == set()

    def test_memory_follows_the_smaller_host(self) -> None:
        made = site_of(put(put(ha(), f"hosts/{DB1}/memory_mb", 16384), f"hosts/{DB2}/memory_mb", 2048))
        assert settings.postgresql_parameters(made)["shared_buffers"] == "512MB"

    def test_the_site_s_own_parameters_win(self) -> None:
        made = site_of(put(ha(), "postgresql/parameters", {"wal_keep_size": "1GB", "enable_nestloop": False}))
        found = settings.postgresql_parameters(made)
        assert found["wal_keep_size"] == "1GB"
        assert found["enable_nestloop"] is False

    def test_statements_with_values_are_not_logged(self) -> None:
        """Changes of roles and schema are (those of ours that carry verifiers hide themselves: hostkit.kea_roles)."""
        found = settings.postgresql_parameters(site_of(ha()))
        assert found["log_statement"] == "ddl"
        assert found["log_parameter_max_length"] == found["log_parameter_max_length_on_error"] == 0

    def test_nothing_executes_memory_that_it_wrote(self) -> None:
        """The unit forbids it, so a site file may not turn the compiler on."""
        assert settings.postgresql_parameters(site_of(ha()))["jit"] == "off"
        with pytest.raises(SiteError, match=r"postgresql\.parameters\.jit: is set by keadb"):
            site_of(put(ha(), "postgresql/parameters", {"jit": True}))

    @pytest.mark.parametrize("stack", STACKS)
    def test_tls_has_a_floor_and_passwords_are_scram(self, stack: str) -> None:
        document = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())
        found = settings.postgresql_parameters(load_site(document["config"]["keadb:site"], source=stack))
        assert (found["ssl"], found["ssl_min_protocol_version"]) == ("on", "TLSv1.2")
        assert found["password_encryption"] == "scram-sha-256"


class TestPlans:
    """What the program writes is what the hosts read."""

    @pytest.mark.parametrize("name", SITES)
    def test_the_applier_takes_every_bundle(self, name: str) -> None:
        for bundle in every_bundle(SITES[name]()):
            assert host_bundle.parse(bundle.to_json()).name == bundle.name

    @pytest.mark.parametrize("name", SITES)
    def test_the_steps_read_their_plans(self, name: str, tmp_path: Path) -> None:
        made = SITES[name]()
        for place in files(made):
            if "/etc/keadb/cluster/" in place:
                host, _, path = place.partition(":")
                target = tmp_path / host / path.removeprefix("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(files(made)[place])
        control = patroni_plan.settings(Context(tmp_path / made.control_host.name, FakeSystem()))
        assert control.config == settings.dynamic_config(made)
        assert control.cluster.prefix == f"/service/{made.cluster}/"
        forms = [patroni_plan.form(Context(tmp_path / host.name, FakeSystem())) for host in made.database_hosts]
        assert [form.first for form in forms] == [True, False][: len(forms)]
        assert [form.me.address for form in forms] == [str(host.address) for host in made.database_hosts]

    def test_the_steps_are_part_of_what_a_host_may_run(self) -> None:
        made = every_bundle(site_of(ha()))
        verbs = {step.run[1] for b in made for step in b.steps} | {probe.run[1] for b in made for probe in b.probes}
        assert verbs == {"patroni-seed", "patroni-form", "patroni-converge", "patroni-probe", "patroni-login"}
        for name in verbs:
            assert verb(name).__name__ == "main"

    def test_a_host_s_bundles_come_in_an_order_that_works(self) -> None:
        names = {host: [b.name for b in bundles] for host, bundles in pg.patroni_bundles(site_of(single())).items()}
        order = ["postgresql-prepare", "patroni", "patroni-settings", "patroni-form", "patroni-converge"]
        order.append("patroni-login")
        assert names == {DB1: order}
