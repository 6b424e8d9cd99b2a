"""The command as the program calls it: verbs, exit codes, clear errors; and the zipapp that carries it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostkit import __main__ as command
from hostkit import install
from keadb.bundle import Bundle, File, Step
from tests.unit.hostkit.fakes import HOST, needs_root

ROOT = Path(__file__).parents[3]
VALUE = "very-secret-value"


def sources() -> dict[str, Any]:
    """What the program sends."""
    return {
        "format": 1,
        "modules": {f"hostkit/{p.name}": p.read_text() for p in sorted((ROOT / "hostkit").glob("*.py"))},
    }


def run(root: Path, verb: str, stdin: object = "", *options: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own."""
    text = stdin if isinstance(stdin, str) else json.dumps(stdin)
    argv = [sys.executable, "-m", "hostkit", "--root", str(root), *options, *verb.split()]
    return subprocess.run(argv, input=text, capture_output=True, text=True, cwd=ROOT, check=False)


def simple(**parts: Any) -> str:
    """A bundle without units."""
    files = {"/etc/x": File(content="@secret:pw@", mode="0600")}
    return Bundle(name="simple", host=HOST, files=files, **parts).to_json()


@needs_root
def test_from_secrets_to_check(tmp_path: Path) -> None:
    """The way of a host: secrets, apply, apply again, drift."""
    sent = run(tmp_path, "secrets", {"secrets": {"pw": VALUE}})
    assert (sent.returncode, json.loads(sent.stdout)) == (0, {"changed": ["pw"]})
    assert (tmp_path / "var/lib/keadb/secrets.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(run(tmp_path, "secrets", {"secrets": {"pw": VALUE}}).stdout) == {"changed": []}
    first, second = (json.loads(run(tmp_path, "apply", simple()).stdout) for _ in range(2))
    assert (first["changed"], first["files"]) == (True, {"/etc/x": "created"})
    assert (second["changed"], second["files"]) == (False, {})
    assert (tmp_path / "etc/x").read_text() == VALUE
    assert json.loads(run(tmp_path, "check").stdout)["in_sync"] is True
    (tmp_path / "etc/x").write_text("by hand")
    (tmp_path / "etc/x").chmod(0o644)
    found = run(tmp_path, "check")
    assert [(d["name"], d["is"], d["diff"]) for d in json.loads(found.stdout)["drift"]] == [
        ("/etc/x", "changed, mode 0644 instead of 0600", [])
    ]
    refused = run(tmp_path, "apply", simple())
    assert (refused.returncode, (tmp_path / "etc/x").read_text()) == (3, "by hand")
    back = run(tmp_path, "restore", {"names": ["/etc/x"]})
    assert json.loads(back.stdout)["files"] == {"/etc/x": "updated"}
    assert (tmp_path / "etc/x").read_text() == VALUE
    assert json.loads(run(tmp_path, "check").stdout)["in_sync"] is True
    answer = json.loads(run(tmp_path, "version").stdout)
    digest = hashlib.sha256(json.dumps(json.loads(simple()), sort_keys=True).encode()).hexdigest()
    assert (answer["applied"], answer["digests"]) == (["simple"], {"simple": digest})
    (tmp_path / "var/lib/keadb/applied/simple.json").write_text("cut off {")
    assert json.loads(run(tmp_path, "version").stdout)["digests"] == {"simple": ""}


@needs_root
def test_a_bundle_whose_last_run_was_cut_is_told_by_its_digest(tmp_path: Path) -> None:
    """Whoever compares it with what was sent finds that it must be sent again."""
    run(tmp_path, "secrets", {"secrets": {"pw": VALUE}})
    run(tmp_path, "apply", simple())
    whole = json.loads(run(tmp_path, "version").stdout)["digests"]["simple"]
    failing = simple(steps=(Step(name="fails", run=("false",)),)).replace("@secret:pw@", "x @secret:pw@")
    assert run(tmp_path, "apply", failing).returncode == 1
    assert json.loads(run(tmp_path, "version").stdout)["digests"] == {"simple": "unfinished"}
    assert run(tmp_path, "apply", simple()).returncode == 0
    assert json.loads(run(tmp_path, "version").stdout)["digests"] == {"simple": whole}


@needs_root
def test_two_applies_at_once_go_one_after_the_other(tmp_path: Path) -> None:
    """A folder that only one may have; both end well."""
    run(tmp_path, "secrets", {"secrets": {"pw": VALUE}})
    alone = f"mkdir {tmp_path}/alone && sleep 0.5 && rmdir {tmp_path}/alone"
    text = simple(steps=(Step(name="alone", run=("sh", "-c", alone)),))
    argv = [sys.executable, "-m", "hostkit", "--root", str(tmp_path), "apply"]
    both = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    assert [(p.communicate()[1], p.returncode) for p in both] == [("", 0), ("", 0)]


@needs_root
def test_a_secret_that_is_no_longer_sent_leaves_the_host(tmp_path: Path) -> None:
    """A host holds just what it needs."""
    run(tmp_path, "secrets", {"secrets": {"pw": VALUE, "old": "x-old-secret"}})
    assert json.loads(run(tmp_path, "secrets", {"secrets": {"pw": VALUE}}).stdout) == {"changed": ["old"]}
    assert "x-old-secret" not in (tmp_path / "var/lib/keadb/secrets.json").read_text()


@needs_root
def test_a_failing_step_shows_no_secret_and_no_traceback(tmp_path: Path) -> None:
    """The step printed the password itself."""
    run(tmp_path, "secrets", {"secrets": {"pw": VALUE}})
    leak = Step(name="leak", run=("sh", "-c", "tail --bytes=99 " + str(tmp_path / "etc/x") + " >&2; exit 1"))
    done = run(tmp_path, "apply", simple(steps=(leak,)))
    assert done.returncode == 1
    assert done.stderr.startswith("keadb-apply apply: bundle simple: step 'leak': ")
    assert done.stderr.rstrip().endswith("exit code 1: ***")
    assert VALUE not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@needs_root
@pytest.mark.parametrize(
    ("verb", "stdin", "message"),
    [
        ("", "", "no verb is given; usage"),
        ("fly", "", "verb 'fly' is given, allowed: accept, apply, audit, bootstrap"),
        ("apply now", "", "apply: given arguments ['now'], allowed are none"),
        ("apply", "{", "bundle: given is not JSON"),
        ("secrets", '{"secrets": {"a": "hush-hush"', "secrets: stdin is not JSON (line 1"),
        ("secrets", [], "secrets: given is list, allowed is a JSON object"),
        ("secrets", {}, "given keys [], allowed: secrets"),
        ("secrets", {"secrets": ["hush-hush"]}, "secrets: given is list, allowed is an object of names"),
        ("secrets", {"secrets": {"A": "hush-hush"}}, "secret name 'A': allowed are lower-case"),
        ("secrets", {"secrets": {"a": ["hush-hush"]}}, "secret 'a': given is list, allowed is a non-empty string"),
        ("keys", {"names": "x"}, "names: given is str, allowed is a list"),
        ("certificates", {"ca": "x"}, "certificates: given keys ['ca'], allowed: ca and certificates"),
        ("bootstrap", {"format": 7}, "request: given format 7, allowed is an object of format 1"),
        ("accept", {"names": []}, "accept: names: allowed is a list of at least one"),
        ("accept", {"names": ["/etc/none"]}, "/etc/none: given is not a file that an applied bundle places"),
        ("restore", {"names": ["none.service"]}, "none.service: given is not a file, unit or package of a bundle"),
        ("prune", {"host": "x", "bundles": ["etcd"]}, "bundles (a list of bundle names, with 'base')"),
        ("foresee", {"bundle": {}}, "foresee: given keys ['bundle'], allowed: bundles"),
        ("run-request", "", "run-request: given [], allowed is one file"),
        ("run-request /etc/passwd", "", "run-request: given '/etc/passwd', allowed is a request in"),
        ("run-request /run/keadb/requests/x.json", "", "there is no request /run/keadb/requests/x.json"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, verb: str, stdin: object, message: str) -> None:
    """Exit code 2; what may hold secrets is not shown."""
    done = run(tmp_path, verb, stdin)
    assert done.returncode == 2
    assert message in done.stderr
    assert "hush-hush" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_bad_options_are_named(tmp_path: Path) -> None:
    """With what is allowed."""
    assert "allowed is a folder that exists" in run(tmp_path / "none", "version").stderr
    assert "allowed is a whole number of seconds" in run(tmp_path, "version", "", "--lock-wait", "soon").stderr


@needs_root
def test_a_wrong_host_is_exit_code_3(tmp_path: Path) -> None:
    """Refused is told apart from failed."""
    (tmp_path / "etc/keadb").mkdir(parents=True)
    (tmp_path / "etc/keadb/host").write_text("other\n")
    assert run(tmp_path, "apply", simple()).returncode == 3


def test_a_verb_that_was_not_shipped_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only when it is called."""
    monkeypatch.setattr(command, "LAZY", ("no-such-module",))
    assert command.main(["--root", str(tmp_path), "no-such-module"]) == 1
    assert "verb 'no-such-module' is not part of the applier on this host: bootstrap it" in capsys.readouterr().err


def test_an_unexpected_error_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind and message, no traceback."""

    def broken(_ctx: object, _argv: object) -> int:
        msg = "surprise"
        raise RuntimeError(msg)

    monkeypatch.setitem(command.VERBS, "version", broken)
    assert command.main(["--root", str(tmp_path), "version"]) == 1
    assert capsys.readouterr().err == "keadb-apply version: RuntimeError: surprise\n"


def test_the_zipapp_is_the_same_whatever_the_order_and_runs(tmp_path: Path) -> None:
    """Installed once; a second time it says that nothing changed."""
    request = sources()
    backwards = {"format": 1, "modules": dict(sorted(request["modules"].items(), reverse=True))}
    assert install.build(request) == install.build(backwards)
    first = install.install(request, tmp_path)
    applier = tmp_path / install.TARGET
    stamp = applier.stat().st_ctime_ns
    assert first["changed"] is True
    assert install.install(backwards, tmp_path) == {**first, "changed": False}
    assert applier.stat().st_ctime_ns == stamp
    assert applier.stat().st_mode & 0o7777 == 0o755
    assert applier.read_bytes().startswith(b"#!/usr/bin/python3 -I\n")
    done = subprocess.run([sys.executable, "-I", applier, "version"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["version"] == 1


def test_the_zipapp_replaces_itself(tmp_path: Path) -> None:
    """The verb ``bootstrap`` does what the first installation did."""
    request = sources()
    install.install(request, tmp_path)
    request["modules"]["hostkit/__init__.py"] += "\nEXTRA = 1\n"
    argv = [sys.executable, "-I", str(tmp_path / install.TARGET), "--root", str(tmp_path), "bootstrap"]
    done = subprocess.run(argv, input=json.dumps(request), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["changed"] is True
    assert (tmp_path / install.TARGET).read_bytes() == install.build(request)


def test_the_first_installation_needs_nothing_but_its_own_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executed from the request, as on a host without an applier."""
    request = sources()
    scope: dict[str, Any] = {"__name__": "keadb_install"}
    exec(request["modules"]["hostkit/install.py"], scope)  # noqa: S102 - this is how the program runs it
    assert scope["main"](request, tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert (tmp_path / install.TARGET).is_file()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("hostkit/__main__.py", None, "hostkit/__main__.py missing"),
        ("hostkit/../evil.py", "", "allowed are texts named hostkit/NAME.py"),
        ("hostkit/broken.py", "def (", "hostkit/broken.py does not compile with Python"),
        (
            "hostkit/verbs.py",
            "raise SystemError('boom')",
            "does not run on this host, the old one stays: SystemError",
        ),
    ],
)
def test_sources_that_would_not_work_never_replace_the_applier(
    tmp_path: Path, name: str, source: str | None, message: str
) -> None:
    """The deploy user can do nothing on a host without it."""
    install.install(sources(), tmp_path)
    before = (tmp_path / install.TARGET).read_bytes()
    request = sources()
    if source is None:
        del request["modules"][name]
    else:
        request["modules"][name] = source
    with pytest.raises(install.InstallError, match=message):
        install.install(request, tmp_path)
    assert (tmp_path / install.TARGET).read_bytes() == before
    assert [p.name for p in (tmp_path / install.TARGET).parent.iterdir()] == ["keadb-apply"]


def test_importing_any_module_has_no_side_effect() -> None:
    """Nothing is printed, read or started."""
    names = [f"hostkit.{p.stem}" for p in (ROOT / "hostkit").glob("*.py") if not p.stem.startswith("__")]
    script = f"import importlib\nfor n in {names!r}: importlib.import_module(n)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it reads or touches anything."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))
    assert command.main(["check"]) == 1
    assert "it must run as root" in capsys.readouterr().err


def test_a_full_disk_names_the_applier_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very first step of a run: there is nothing else yet that could say it clearly."""
    install.install(sources(), tmp_path)
    target = tmp_path / install.TARGET
    before = target.read_bytes()
    newer = sources()
    newer["modules"]["hostkit/__init__.py"] += "\n# newer\n"

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        install.InstallError, match="keadb-apply cannot be written: No space left on device; mend that"
    ):
        install.install(newer, tmp_path)
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(("verb", "expected"), [("version", 0o022), ("etcd-lead", 0o077)])
def test_only_what_runs_by_itself_keeps_its_units_umask(verb: str, expected: int) -> None:
    """A timer's verb makes no file, and is to be as confined as its unit says; for all others modes must be sure."""
    before = os.umask(0o077)
    try:
        command.main(["--root", "/", verb, "more"])
        assert os.umask(before) == expected
    finally:
        os.umask(before)
