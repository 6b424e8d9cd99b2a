"""The base system's bundle: what keeps a machine's own habits away from the cluster."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from components.base_system import JOURNALD, NEEDRESTART, POLICY, UNATTENDED, base_bundle
from keadb.site import Site, load_site
from tests.unit.core.samples import ha, put
from tests.unit.core.samples import site as sample


def content(of: Site, path: str) -> str:
    """Return a file of the first host's base bundle."""
    return base_bundle(of, next(iter(of.hosts.values()))).files[path].content


class TestLogs:
    """The journal never takes the disk that the database needs."""

    @pytest.mark.parametrize(("disk_gb", "megabytes"), [(4, 204), (20, 1024), (500, 1024), (1, 64)])
    def test_its_size_follows_the_disk(self, disk_gb: int, megabytes: int) -> None:
        """A twentieth, within limits."""
        data = put(ha(), "hosts/lab-kea-db-01/disk_gb", disk_gb)
        text = content(load_site(data, source="test"), JOURNALD)
        assert f"SystemMaxUse={megabytes}M\n" in text

    def test_a_changed_limit_restarts_the_journal(self) -> None:
        """It reads its settings at the start only."""
        bundle = base_bundle(sample(), sample().control_host)
        assert bundle.units["systemd-journald.service"].restart_on == (JOURNALD,)


class TestUnattendedUpgrades:
    """Read by unattended-upgrades: regular expressions, matched from a name's start."""

    @staticmethod
    def blocked(of: Site) -> list[re.Pattern[str]]:
        """Return the patterns of the file."""
        block = content(of, UNATTENDED).partition("Package-Blacklist {")[2].partition("};")[0]
        return [re.compile(text) for text in re.findall(r'"(.+)";', block)]

    def test_the_clusters_packages_are_left_alone(self) -> None:
        """Those, and not the rest of the machine: security updates of openssl are wanted."""
        patterns = self.blocked(sample())
        for name in ("etcd-server", "patroni", "postgresql-15", "kea-admin"):
            assert any(pattern.match(name) for pattern in patterns), name
        for name in ("openssl", "postgresql-common", "patroni-doc", "libpq5"):
            assert not any(pattern.match(name) for pattern in patterns), name

    def test_it_never_reboots(self) -> None:
        """Two machines at the same minute would be an outage."""
        assert 'Unattended-Upgrade::Automatic-Reboot "false";' in content(sample(), UNATTENDED)


class TestNeedrestart:
    """Read by needrestart as Perl: a unit that matches is not restarted unasked."""

    def test_members_are_not_restarted(self) -> None:
        """Patroni takes PostgreSQL along; everything else may be."""
        text = re.search(r"qr\((.+)\)}", content(sample(), NEEDRESTART))
        assert text
        ours = re.compile(text[1])
        for unit in (
            "keadb-etcd.service",
            "patroni.service",
            "etcd.service",
            "postgresql@15-main.service",
            "haproxy.service",
        ):
            assert ours.search(unit), unit
        for unit in ("ssh.service", "cron.service", "my-patroni.service", "systemd-journald.service"):
            assert not ours.search(unit), unit


class TestPolicy:
    """Asked by maintainer scripts, by the name of an init script or of a unit, before they act on a service."""

    @staticmethod
    def answer(folder: Path, *argv: str) -> int:
        """Return what the script answers: 101 is no, 104 is yes."""
        script = folder / "policy-rc.d"
        script.write_text(content(sample(), POLICY))
        return subprocess.run(["/bin/sh", "-u", script, *argv], check=False).returncode

    @pytest.mark.parametrize(
        "name",
        [
            "patroni",
            "patroni.service",
            "etcd.service",
            "postgresql@15-*",
            "keadb-etcd",
            "haproxy",
            "keepalived.service",
        ],
    )
    def test_packages_do_not_touch_members(self, tmp_path: Path, name: str) -> None:
        assert self.answer(tmp_path, name, "restart") == 101
        assert self.answer(tmp_path, "--quiet", name, "(stop)", "2") == 101

    @pytest.mark.parametrize("name", ["ssh", "ssh.service", "cron", "my-patroni.service", "etcdctl"])
    def test_everything_else_goes_on(self, tmp_path: Path, name: str) -> None:
        assert self.answer(tmp_path, name, "restart") == 104
        assert self.answer(tmp_path) == 104

    def test_it_can_be_run(self) -> None:
        assert base_bundle(sample(), sample().control_host).files[POLICY].mode == "0755"
