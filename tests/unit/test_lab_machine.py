"""What the lab asks of the machine: packages, apt sources, control groups, the image's build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import apt, bare, cgroup, image, packages
from lab.errors import LabError

TARGETS = [
    apt.Target("http://mirror.test/debian/", "bookworm", "main"),
    apt.Target("http://mirror.test/debian/", "bookworm-updates", "main"),
    apt.Target("http://mirror.test/security/", "bookworm-security", "main"),
    apt.Target("http://other.test/tool/", "nodistro", "main"),
]


class TestPackages:
    """`make setup` on a fresh machine and on one that has everything."""

    def test_nothing_is_done_when_nothing_is_missing(self) -> None:
        """Not even a look at apt."""
        assert packages.ensure(pytest.fail, has=lambda _name: True) == []

    def test_a_package_is_missing_when_one_of_its_commands_is(self) -> None:
        """Half a package is none."""
        assert packages.missing(lambda name: name not in {"losetup", "ip"}) == ["iproute2", "mount"]

    def test_without_apt_the_message_names_what_is_needed(self) -> None:
        """Another distribution: the person installs by hand."""
        with pytest.raises(LabError, match=r"needs systemd-container, and this machine has no apt-get"):
            packages.ensure(pytest.fail, has=lambda name: name not in {"systemd-nspawn", "apt-get"})

    def test_without_root_the_message_is_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To be pasted behind sudo."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(LabError, match=r"as root: apt-get install --no-install-recommends mmdebstrap"):
            packages.ensure(pytest.fail, has=lambda name: name != "mmdebstrap")

    def test_apts_own_words_are_in_the_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A failing mirror is named, not guessed."""
        fake = tmp_path / "apt-get"
        fake.write_text("#!/bin/sh\necho 'E: mirror.test is down' >&2\nexit 100\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(LabError, match=r"(?s)update failed \(exit 100\).*mirror\.test is down"):
            packages.ensure(lambda _line: None, has=lambda name: name != "ip")


class TestAptSources:
    """The image comes from where this machine's own packages come from."""

    def test_the_machines_own_archive_is_chosen(self) -> None:
        """And no other source that happens to have a `main`."""
        lines = apt.choose(TARGETS, "bookworm").lines(("trixie", "bookworm"), Path("/k.gpg"))
        assert lines == [
            "deb [signed-by=/k.gpg] http://mirror.test/debian/ trixie main",
            "deb [signed-by=/k.gpg] http://mirror.test/security/ trixie-security main",
            "deb [signed-by=/k.gpg] http://mirror.test/debian/ bookworm main",
            "deb [signed-by=/k.gpg] http://mirror.test/security/ bookworm-security main",
        ]

    def test_no_security_archive_is_no_error(self) -> None:
        """A local mirror may carry only the release."""
        assert apt.choose(TARGETS[:1], "bookworm").security is None

    def test_a_machine_without_that_release_is_told_what_was_found(self) -> None:
        """Instead of a failing download."""
        with pytest.raises(LabError, match=r"no source for Debian 'trixie' main \(found: bookworm-security/main"):
            apt.choose(TARGETS, "trixie")

    def test_a_machine_that_is_not_debian_is_refused(self) -> None:
        """Its archive has no PostgreSQL 15 for trixie."""
        with pytest.raises(LabError, match="this is 'ubuntu'"):
            apt.codename('ID=ubuntu\nVERSION_CODENAME="noble"\n')
        assert apt.codename('ID=debian\nVERSION_CODENAME="bookworm"\n') == "bookworm"

    def test_targets_and_options_are_read_as_apt_prints_them(self) -> None:
        """Proxies and date checks travel; index settings and empty ones don't."""
        assert apt.parse_targets("http://m/|trixie|main\n\n") == [apt.Target("http://m/", "trixie", "main")]
        dump = (
            'Acquire::http::Proxy "http://p:3128";\nAcquire::Check-Valid-Until "false";\n'
            'Acquire::Languages:: "none";\nAcquire::https "";\nDPkg::Post-Invoke:: "rm -f x";\n'
        )
        assert apt.parse_options(dump) == [
            'Acquire::http::Proxy "http://p:3128"',
            'Acquire::Check-Valid-Until "false"',
        ]


class TestControlGroups:
    """Where the unified tree is."""

    def test_it_is_found_on_hybrid_and_on_unified_machines(self) -> None:
        """Beside version 1 controllers, or alone."""
        hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
        assert cgroup.find_root(hybrid) == Path("/sys/fs/cgroup/unified")
        assert cgroup.find_root("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n") == Path("/sys/fs/cgroup")
        assert cgroup.find_root("proc /proc proc rw 0 0\n") is None


class TestImage:
    """The shared root file system in the cache."""

    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A cache of its own, and an archive without asking apt."""
        monkeypatch.setenv("KEADB_CACHE", str(tmp_path))
        monkeypatch.setattr(apt, "machine_archive", lambda: apt.Archive("http://m/", None))
        monkeypatch.setattr(apt, "machine_options", list)
        monkeypatch.setattr(apt, "KEYRING", tmp_path / "keyring")
        (tmp_path / "keyring").touch()
        return tmp_path

    def build(self, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        """Let the build be this shell script; $0 is the target."""
        monkeypatch.setattr(image, "command", lambda target, *_: ["/bin/sh", "-c", script, str(target)])

    def test_the_recipe_names_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new package is a new image; the same recipe is the same one."""
        before = image.path()
        assert image.path() == before
        monkeypatch.setattr(image, "SERVICES", (*image.SERVICES, "haproxy"))
        assert image.path() != before

    def test_it_is_built_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second call finds it, and shows nothing."""
        self.build(monkeypatch, 'echo "I: running apt-get update..."; mkdir "$0"; touch "$0/etc"')
        said: list[str] = []
        built = image.ensure(said.append)
        assert (built / "etc").exists()
        assert any("running apt-get update" in line for line in said)
        self.build(monkeypatch, "exit 1")
        assert image.ensure(pytest.fail) == built

    def test_a_failed_build_shows_its_last_lines_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, cache: Path
    ) -> None:
        """Half an image under the final name would be used for good."""
        self.build(monkeypatch, 'mkdir "$0"; touch "$0/half"; echo "E: no such package: etcd"; exit 25')
        with pytest.raises(LabError, match=r"(?s)exit 25.*no such package: etcd"):
            image.ensure(lambda _line: None)
        assert sorted(path.name for path in cache.iterdir()) == ["image.lock", "keyring"]

    def test_a_missing_release_key_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one failure that an older machine brings along."""
        self.build(monkeypatch, 'echo "E: NO_PUBKEY 1234"; exit 1')
        with pytest.raises(LabError, match="update the package debian-archive-keyring"):
            image.ensure(lambda _line: None)

    def test_what_a_killed_build_left_is_removed(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """A root file system is half a gigabyte."""
        (cache / ".image-building-1" / "usr").mkdir(parents=True)
        self.build(monkeypatch, 'mkdir "$0"')
        image.ensure(lambda _line: None)
        assert not (cache / ".image-building-1").exists()

    def test_the_build_runs_in_a_mount_namespace_of_its_own(self, tmp_path: Path) -> None:
        """A killed one would leave /proc mounted in the cache; then removing it is dangerous."""
        argv = image.command(tmp_path, ["deb http://m/ trixie main"], ['Acquire::Retries "3"'])
        assert argv[:4] == ["unshare", "--mount", "--propagation", "private"]
        assert argv[-3:] == ["trixie", str(tmp_path), "deb http://m/ trixie main"]
        assert '--aptopt=Acquire::Retries "3"' in argv

    def test_progress_shows_steps_and_not_the_text_of_hooks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A minute without a word is too long; a shell script on one line is no word."""
        self.build(monkeypatch, """echo "I: running --customize-hook in shell: sh -c 'long text'"; mkdir "$0\"""")
        said: list[str] = []
        image.ensure(said.append)
        assert [line.split("s  ")[1] for line in said[1:-1]] == ["setting up"]


class TestBareImage:
    """A machine with nothing of a site on it, and a repository beside it."""

    def test_a_bare_host_has_no_interpreter_and_nothing_of_a_site(self) -> None:
        """That is what it is for; all of it lies in the repository instead."""
        assert not set(bare.BARE) & {"python3", "openssl", *image.SERVICES}
        assert {"python3", "openssl", *image.SERVICES} <= set(bare.offered())

    def test_the_build_downloads_before_the_common_setup_and_adds_the_source_after_it(self, tmp_path: Path) -> None:
        """The common setup empties apt's folders."""
        argv = bare.command(tmp_path, ["deb http://m/ trixie main"], [])
        hooks = [word for word in argv if word.startswith("--customize-hook=")]
        assert [
            next(n for n in ("--download-only", "bare-setup", "image-setup", "sources.list.d") if n in h)
            for h in hooks
        ] == [
            "--download-only",
            "bare-setup",
            "image-setup",
            "sources.list.d",
        ]
        assert "postgresql-15" in hooks[0]
        assert f"--include={','.join(bare.BARE)}" in argv

    def test_the_recipe_names_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What the repository offers belongs to it; the full image is another one."""
        monkeypatch.setenv("KEADB_CACHE", str(tmp_path))
        before = bare.path()
        assert before != image.path()
        monkeypatch.setattr(image, "SERVICES", (*image.SERVICES, "haproxy"))
        assert bare.path() != before
