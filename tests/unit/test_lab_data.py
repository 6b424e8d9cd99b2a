"""The lab's data: names, sample reservations, and a site file that the site model accepts."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from keadb.secrets import SECRETS
from keadb.site import load_site
from keadb.stackfile import read_stack
from lab import keys, load, secrets, sitefile
from lab.api import Lab
from lab.errors import LabError
from lab.load import parameters
from lab.model import LabSpec, Made, lab_spec
from lab.reservations import COUNT, SUBNETS, generate
from tests.lab.topology import topology

if TYPE_CHECKING:
    from pathlib import Path


DIGEST = "2b5dadc2fc25c33d36ad15a386acc919b5f20708e52c8d5048f3c5ee6275288c"


@pytest.fixture
def spec(tmp_path: Path) -> LabSpec:
    """A lab whose keys are made."""
    it = LabSpec("t1", tmp_path)
    keys.ensure(it)
    return it


class TestNames:
    """A lab's name decides everything that the kernel and the network see."""

    @pytest.mark.parametrize("name", ["", "Lab", "1lab", "a-b", "../x", "a" * 13, "lab\n"])
    def test_bad_names_are_refused(self, name: str, tmp_path: Path) -> None:
        """A name that cannot be part of a host name, or that leaves the state folder."""
        with pytest.raises(LabError, match="lab name"):
            LabSpec(name, tmp_path)

    def test_interface_names_fit_the_kernel(self, tmp_path: Path) -> None:
        """Longer ones would be cut off by systemd-nspawn, and `cut` would miss them."""
        for host in LabSpec("a" * 12, tmp_path).hosts:
            assert len(host.interface) <= 15

    def test_a_host_is_found_by_any_of_its_names(self, tmp_path: Path) -> None:
        """The full name, without the lab's, or the short one."""
        it = LabSpec("t1", tmp_path)
        for name in ("t1-kea-db-02", "kea-db-02", "db-02"):
            assert str(it.host(name).address) == "172.30.30.11"

    def test_an_unknown_host_is_named_with_the_known_ones(self, tmp_path: Path) -> None:
        """So that a typing error costs one look."""
        with pytest.raises(LabError, match=r"no host 'db-03'; hosts: t1-kea-db-01, t1-kea-db-02, t1-kea-witness"):
            LabSpec("t1", tmp_path).host("db-03")

    def test_name_and_root_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """KEADB_LAB and KEADB_LAB_STATE."""
        monkeypatch.setenv("KEADB_LAB", "t9")
        monkeypatch.setenv("KEADB_LAB_STATE", str(tmp_path))
        assert lab_spec().folder == tmp_path / "t9"
        assert lab_spec("t8").folder == tmp_path / "t8"


class TestMachines:
    """Which machines a lab has, and where, apart from what its site file declares."""

    def test_a_spare_one_is_there_and_not_declared(self, spec: LabSpec) -> None:
        """With its key, like any other; nobody's until somebody writes it into the site file."""
        spec.remember(Made(spare=True))
        keys.ensure(spec)
        assert [host.short for host in spec.hosts][-1] == "kea-witness-02"
        sitefile.ensure(spec, disk_mb=4096)
        assert set(declared(spec)) == {"t1-kea-db-01", "t1-kea-db-02", "t1-kea-witness"}

    def test_topology_single_declares_one_of_them(self, spec: LabSpec) -> None:
        """The others run all the same, so that the site can grow."""
        assert len(spec.hosts) == 3
        sitefile.ensure(spec, disk_mb=4096, topology="single")
        assert set(declared(spec)) == {"t1-kea-db-01"}
        load_site(yaml.safe_load(spec.site_file.read_text())["config"]["keadb:site"], source="lab")

    def test_an_edit_makes_it_a_whole_site_and_takes_it_back(self, spec: LabSpec) -> None:
        """What stays keeps its entry; the site model accepts both."""
        sitefile.ensure(spec, disk_mb=4096, topology="single")
        data = yaml.safe_load(spec.site_file.read_text())["config"]["keadb:site"]
        data["hosts"]["t1-kea-db-01"]["generation"] = 7
        lab = Lab("t1")
        lab.spec = spec
        for wanted, count in (("ha", 3), ("single", 1)):
            topology(lab, wanted)(data)
            site = load_site(data, source="lab")
            assert (site.topology, len(site.hosts)) == (wanted, count)
            assert site.hosts["t1-kea-db-01"].generation == 7

    def test_a_new_address_is_remembered_and_told(self, spec: LabSpec) -> None:
        """In the lab's own record and in its site file, where the host is declared."""
        sitefile.ensure(spec, disk_mb=4096)
        moved = spec.moved(spec.host("db-02"), "172.30.30.21")
        spec.remember(Made(addresses={moved.short: moved.address}))
        assert str(spec.host("db-02").address) == "172.30.30.21"
        assert sitefile.readdressed(spec, spec.host("db-02"))
        assert declared(spec)["t1-kea-db-02"]["address"] == "172.30.30.21"

    @pytest.mark.parametrize("address", ["172.30.30.10", "172.30.30.13", "172.30.30.255", "10.0.0.1", "x"])
    def test_only_free_addresses_are_taken(self, spec: LabSpec, address: str) -> None:
        """Another host's, the VIP, another network's, none at all."""
        with pytest.raises(LabError, match=f"address '{address}': allowed is a free one of 172.30.30.0/24"):
            spec.moved(spec.host("db-02"), address)

    @pytest.mark.parametrize(
        "address", ["172.30.30.10", "172.30.30.1", "172.30.30.13", "172.30.30.255", "10.0.0.1", "x"]
    )
    def test_a_machine_that_is_no_host_has_an_address_of_its_own(self, spec: LabSpec, address: str) -> None:
        """Kea's server's, which no host has, or any free one."""
        assert [str(spec.stranger(f"172.30.30.{n}")) for n in (2, 99)] == ["172.30.30.2", "172.30.30.99"]
        with pytest.raises(LabError, match=f"address '{address}': allowed is one of 172.30.30.0/24 that no host"):
            spec.stranger(address)


def declared(spec: LabSpec) -> dict[str, Any]:
    """Return the hosts of the site file."""
    return dict(yaml.safe_load(spec.site_file.read_text())["config"]["keadb:site"]["hosts"])


class TestReservations:
    """Sample data: the same on every machine, valid in Kea's terms."""

    def test_they_never_change(self) -> None:
        """Tests and drills name single ones."""
        text = "\n".join(f"{r.hw_address.hex()} {r.subnet_id} {r.address} {r.hostname}" for r in generate())
        assert hashlib.sha256(text.encode()).hexdigest() == DIGEST
        first = next(generate())
        assert (first.hw_address.hex(":"), str(first.address), first.subnet_id) == (
            "02:4b:45:00:01:0a",
            "172.30.64.10",
            1,
        )

    def test_count_and_uniqueness(self) -> None:
        """Duplicates would be accepted by the schema and break clients."""
        rows = list(generate())
        assert len(rows) == COUNT == 2500
        assert (
            len({r.hw_address for r in rows})
            == len({r.address for r in rows})
            == len({r.hostname for r in rows})
            == COUNT
        )

    def test_every_address_lies_in_its_subnet(self) -> None:
        """An address outside of its subnet is served as it is; none on infrastructure, network or broadcast."""
        for row in generate():
            assert row.address in SUBNETS[row.subnet_id]
            assert 10 <= int(row.address) & 255 <= 254

    def test_they_are_spread_evenly(self) -> None:
        """Each subnet has its share."""
        assert set(Counter(r.subnet_id for r in generate()).values()) == {156, 157}
        assert sorted(SUBNETS) == list(range(1, 17))

    def test_fewer_are_the_beginning_of_more(self) -> None:
        """A larger load keeps the smaller one's rows."""
        assert list(generate(40)) == list(generate())[:40]

    @pytest.mark.parametrize("count", [-1, 16 * 245 + 1])
    def test_impossible_counts_are_refused(self, count: int) -> None:
        """Rather than addresses outside of their subnets."""
        with pytest.raises(ValueError, match="allowed are 0 to 3920"):
            list(generate(count))

    def test_columns_have_the_schemas_types(self) -> None:
        """Addresses are numbers, hardware addresses bytes: as text Kea would ignore them silently."""
        columns = parameters(3)
        assert columns["kind"] == 0
        assert columns["addresses"][0] == 0xAC1E400A
        assert columns["identifiers"][0] == bytes.fromhex("024b4500010a")
        assert {len(value) for key, value in columns.items() if key != "kind"} == {3}


class TestSiteFile:
    """The lab is a site like any other."""

    def test_the_site_model_accepts_it(self, spec: LabSpec) -> None:
        """As the engine reads it, with the stack named like the lab."""
        sitefile.ensure(spec, disk_mb=4096)
        site = read_stack(spec.site_file.read_text(), stack="t1", source="lab")
        assert [host.name for host in site.database_hosts] == ["t1-kea-db-01", "t1-kea-db-02"]
        assert site.witness is not None
        assert site.witness.name == "t1-kea-witness"
        assert site.hosts["t1-kea-db-01"].ssh_host_key == keys.public_line(spec.host_key(spec.host("db-01")))

    def test_same_input_same_data(self, spec: LabSpec) -> None:
        """Nothing but name, keys, disk and day decides."""
        host_keys = {host.name: keys.public_line(spec.host_key(host)) for host in spec.hosts}
        made = [sitefile.site(spec, host_keys, disk_gb=4, first=dt.date(2026, 1, 2)) for _ in range(2)]
        assert yaml.safe_dump(made[0]) == yaml.safe_dump(made[1])
        assert load_site(made[0], source="lab").tls.epoch == dt.date(2026, 1, 2)

    def test_nothing_is_written_twice(self, spec: LabSpec) -> None:
        """A second `up` leaves bytes and time of the file alone."""
        assert sitefile.ensure(spec, disk_mb=4096)
        before = spec.site_file.read_bytes(), spec.site_file.stat().st_mtime_ns
        assert not sitefile.ensure(spec, disk_mb=4096)
        assert (spec.site_file.read_bytes(), spec.site_file.stat().st_mtime_ns) == before

    def test_changed_host_keys_are_pinned_and_the_rest_is_kept(self, spec: LabSpec) -> None:
        """What people changed, and the encrypted secrets, stay."""
        sitefile.ensure(spec, disk_mb=4096)
        document: dict[str, Any] = yaml.safe_load(spec.site_file.read_text())
        document["config"]["keadb:site"]["patroni"] = {"ttl": 30}
        document["config"]["keadb:secret_ca_key"] = {"secure": "v1:abc"}
        document["encryptionsalt"] = "v1:salt"
        spec.site_file.write_text(yaml.safe_dump(document))
        host = spec.host("db-02")
        spec.host_key(host).unlink()
        keys.ensure(spec)
        assert sitefile.ensure(spec, disk_mb=4096)
        document["config"]["keadb:site"]["hosts"][host.name]["ssh_host_key"] = keys.public_line(spec.host_key(host))
        assert yaml.safe_load(spec.site_file.read_text()) == document

    def test_it_holds_no_aliases(self, spec: LabSpec) -> None:
        """People edit it; `*id001` would change two lines at once."""
        sitefile.ensure(spec, disk_mb=4096)
        assert "&id" not in spec.site_file.read_text()


class TestSecrets:
    """Made with the lab, by the code that makes a real site's."""

    def test_the_stack_is_the_labs_own_whatever_real_stacks_are_called(self, tmp_path: Path) -> None:
        """A lab called like a site must never touch the site's secrets."""
        found = secrets.stack(LabSpec("us1", tmp_path))
        assert (found.work_dir, found.netns, found.is_lab) == (tmp_path / "us1", "keadb-us1", True)

    def test_a_complete_site_file_needs_no_engine(self, spec: LabSpec) -> None:
        """A second `up` is quick, and works while the engine's command line is in use."""
        sitefile.ensure(spec, disk_mb=4096)
        document = yaml.safe_load(spec.site_file.read_text())
        document["config"] |= {known.config_key: {"secure": "v1:x"} for known in SECRETS}
        spec.site_file.write_text(yaml.safe_dump(document))
        assert not secrets.ensure(spec, pytest.fail)


class TestKeys:
    """Identities of the lab."""

    def test_they_are_made_once_and_for_root_only(self, spec: LabSpec) -> None:
        """A second `up` must not lock the deploy user out."""
        before = {path: path.read_bytes() for path in spec.ssh.iterdir()}
        keys.ensure(spec)
        assert {path: path.read_bytes() for path in spec.ssh.iterdir()} == before
        assert len(before) == 8
        assert {path.stat().st_mode & 0o777 for path in before if path.suffix != ".pub"} == {0o600}
        assert (spec.folder / "passphrase").stat().st_mode & 0o777 == 0o600
        assert spec.ssh.stat().st_mode & 0o777 == 0o700

    def test_every_host_has_its_own(self, spec: LabSpec) -> None:
        """Else a pinned key would not tell hosts apart."""
        lines = {keys.public_line(spec.host_key(host)) for host in spec.hosts}
        assert len(lines) == 3
        assert all(line.startswith("ssh-ed25519 ") for line in lines)


class TestLoad:
    """The loader where there is no database."""

    def test_a_failure_is_told_without_the_password(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Exit code 1, libpq's reason, no traceback."""
        request = {
            "conninfo": "host=127.0.0.1 port=1 dbname=kea connect_timeout=2 sslmode=verify-full",
            "user": "kea_owner_a",
            "password": "never-shown-to-anyone",
            "ca": "",
        }
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
        assert load.main() == 1
        said = capsys.readouterr()
        assert "127.0.0.1" in said.err
        assert "never-shown" not in said.err + said.out
        assert "Traceback" not in said.err

    def test_without_a_lab_it_says_how_to_make_one(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Before anything is imported or asked."""
        monkeypatch.setenv("KEADB_LAB_STATE", str(tmp_path))
        with pytest.raises(LabError, match="has no site file; start it with: keadb lab up --name t1"):
            load.load(Lab("t1"))
