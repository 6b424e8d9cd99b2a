"""``keadb drift``: what hosts say becomes one report; a real SSH server on loopback stands for a host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from components.catalog import bundles
from keadb.site import Site
from keadb.stackfile import read_stack
from ops import drift
from ops.drift import Reply
from ops.drift_command import drift as command
from ops.exits import CommandError, Exit
from ops.stacks import Stack, resolve
from tests.unit.ops.test_status import DEPLOY, host, server

STACK_FILE = Path(__file__).parents[3] / "Pulumi.us3.yaml"
EDIT = {
    "bundle": "base",
    "kind": "file",
    "name": "/etc/hosts",
    "is": "changed",
    "accepted": False,
    "diff": ["--- /etc/hosts as applied", "-a [bold]", "+b\x1b"],
}
STOPPED = {"bundle": "etcd", "kind": "unit", "name": "e.service", "is": "inactive", "accepted": False, "diff": []}


@pytest.fixture
def site() -> Site:
    """A real site file's."""
    return read_stack(STACK_FILE.read_text(), stack="us3", source="test")


def reply(*items: Mapping[str, Any], unfinished: tuple[str, ...] = ()) -> Reply:
    """A host's answer."""
    return Reply(document={"drift": list(items), "unfinished": list(unfinished), "bundles": [], "in_sync": False})


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ({"a": reply(), "b": reply()}, Exit.OK),
        ({"a": reply({**EDIT, "accepted": True})}, Exit.OK),
        ({"a": reply(EDIT), "b": reply()}, Exit.CHANGES),
        ({"a": reply(STOPPED)}, Exit.CHANGES),
        ({"a": reply(unfinished=("etcd",))}, Exit.CHANGES),
        ({"a": reply(EDIT), "b": Reply(error="gone", unreachable=True)}, Exit.UNREACHABLE),
    ],
)
def test_exit_code_tells_in_sync_from_drift_from_unknown(replies: dict[str, Reply], code: Exit) -> None:
    assert drift.report("us3", replies).exit_code is code


def test_report_names_host_difference_and_way_on() -> None:
    """Markup and control characters of a file's text are text."""
    made = drift.report("us3", {"db": reply(EDIT, STOPPED, {**EDIT, "name": "/etc/x", "accepted": True})})
    out = StringIO()
    drift.show(made, Console(file=out, width=60, highlight=False))
    text = out.getvalue()
    assert "db:/etc/hosts  changed  [file of bundle base]\n" in text
    assert "    -a [bold]\n" in text
    assert "    +b \n" in text
    assert "db:e.service  inactive  [unit of bundle etcd]\n" in text
    assert "db:/etc/x  changed  [file of bundle base]  (accepted)\n" in text
    assert "stack us3: 2 differences, 1 accepted\n" in text
    assert "keadb drift --stack us3 --accept HOST:FILE    seen: the next run may write over it\n" in text
    plain = made.as_dict()
    assert (plain["in_sync"], len(plain["drift"])) == (False, 3)
    assert plain["drift"][0]["is"] == "changed"
    json.dumps(plain)


def test_unfinished_and_silent_hosts_are_shown() -> None:
    out = StringIO()
    replies = {"a": reply(unfinished=("etcd",)), "b": Reply(error="does not answer", unreachable=True)}
    drift.show(drift.report("us3", replies), Console(file=out, width=60))
    assert "a: the last run of etcd did not come to its end" in out.getvalue()
    assert "! b: does not answer" in out.getvalue()


def test_targets_are_grouped_by_host(site: Site) -> None:
    first, second, *_ = site.hosts
    given = [f"{first}:/etc/a:b", f"{second}:x.service", f"{first}:pkg"]
    assert drift.targets(site, given) == {first: ["/etc/a:b", "pkg"], second: ["x.service"]}


@pytest.mark.parametrize("given", ["/etc/hosts", "nobody:/etc/hosts", "us3-kea-db-01:", "us3-kea-db-01"])
def test_target_of_another_form_is_a_usage_error(given: str, site: Site) -> None:
    with pytest.raises(CommandError, match=r"allowed: HOST:NAME .* HOST one of us3-kea-db-01") as e:
        drift.targets(site, [given])
    assert e.value.code is Exit.USAGE


def asked(verb: str, request: str, *, says: str = "", fails: str = "") -> tuple[Reply, list[tuple[str, str]]]:
    """Ask one host; return its reply, and commands with what they read."""
    got: list[tuple[str, str]] = []

    async def answer(process: Any) -> None:
        got.append((process.command, await process.stdin.read() if request else ""))
        process.stdout.write(says)
        process.stderr.write(fails)
        process.exit(3 if fails else 0)

    async def go() -> Reply:
        async with server(answer) as port:
            return await drift.ask(host(port), DEPLOY, verb, request, seconds=5)

    return asyncio.run(go()), got


def test_request_goes_to_the_applier_on_stdin() -> None:
    """Never on a command line, where a file's name could be taken for options or shell."""
    answered, got = asked("accept", '{"names": ["/etc/a b"]}', says='{"accepted": []}')
    assert answered == Reply(document={"accepted": []})
    assert got == [("sudo -n /usr/lib/keadb/keadb-apply accept", '{"names": ["/etc/a b"]}')]


def test_refusal_is_passed_on_whole() -> None:
    answered, _ = asked("restore", "{}", fails="keadb-apply restore: no\nbecause of x\n")
    assert answered == Reply(error="no\nbecause of x")
    assert asked("check", "", says="hello")[0].error == "gave an answer that is not JSON"
    gone = asyncio.run(drift.ask(host(1), DEPLOY, "check", "", seconds=1))
    assert gone.unreachable
    assert "cannot be reached" in gone.error


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Have hosts answer this; what they were asked is returned."""
    monkeypatch.setattr(drift, "secret_values", lambda _stack: {"deploy_key": "k"})

    def prepare(replies: Mapping[str, Reply]) -> list[Any]:
        calls: list[Any] = []

        async def ask(hosts: Any, _key: str, verb: str, requests: Any = None, **_: Any) -> dict[str, Reply]:
            calls.append((verb, [h.name for h in hosts], requests))
            return {h.name: replies[h.name] for h in hosts}

        monkeypatch.setattr(drift, "_ask", ask)
        return calls

    return prepare


@pytest.fixture
def stack() -> Stack:
    return resolve("us3")


def test_only_hosts_that_are_named_are_changed(stack: Stack, answers: Callable[..., list[Any]]) -> None:
    calls = answers({"us3-kea-db-01": Reply(document={"accepted": ["/etc/hosts"]})})
    done = drift.change(stack, "accept", ["us3-kea-db-01:/etc/hosts"])
    assert calls == [("accept", ["us3-kea-db-01"], {"us3-kea-db-01": '{"names": ["/etc/hosts"]}'})]
    assert drift.told("h", done["us3-kea-db-01"]) == ["h: /etc/hosts: accepted, the next run may write over it"]


def test_one_refusal_fails_and_says_what_the_others_did(stack: Stack, answers: Callable[..., list[Any]]) -> None:
    answers(
        {
            "us3-kea-db-01": Reply(
                document={"files": {"/a": "updated"}, "units": {}, "packages": [], "waiting": ["p"]}
            ),
            "us3-kea-db-02": Reply(error="run keadb drift --stack STACK --accept x"),
        }
    )
    with pytest.raises(CommandError) as e:
        drift.change(stack, "restore", ["us3-kea-db-01:/a", "us3-kea-db-02:/a"])
    assert str(e.value).splitlines() == [
        "us3-kea-db-01: /a: put back",
        "us3-kea-db-01: p is not restarted here; it reads the file when it is next",
        "us3-kea-db-02: restore: run keadb drift --stack us3 --accept x",
    ]
    assert e.value.code is Exit.FAILED


def test_refusals_are_foreseen_for_what_would_run(
    stack: Stack, site: Site, answers: Callable[..., list[Any]]
) -> None:
    """Only hosts with changing bundles are asked, with the bundles that the engine would send."""
    calls = answers({"us3-kea-db-01": Reply(document={"refused": {"etcd": "see --stack STACK --accept"}})})
    changing = [("us3-kea-db-01", "etcd"), ("us3-kea-db-01", "prune"), ("us3-kea-db-02", "bootstrap"), (None, "x")]
    assert drift.foresee(stack, site, changing) == [
        "us3-kea-db-01: etcd: 'up' would be refused: see --stack us3 --accept"
    ]
    ((verb, hosts, requests),) = calls
    assert (verb, hosts) == ("foresee", ["us3-kea-db-01"])
    request = json.loads(requests["us3-kea-db-01"])
    declared = {b.name: b for b in bundles(site)["us3-kea-db-01"]}
    assert request["bundles"] == [json.loads(declared["etcd"].to_json())]
    assert request["prune"] == {"host": "us3-kea-db-01", "bundles": sorted(declared)}
    assert drift.foresee(stack, site, [("us3-kea-db-02", "bootstrap")]) == []


def test_host_that_cannot_foresee_is_a_warning(stack: Stack, site: Site, answers: Callable[..., list[Any]]) -> None:
    answers({"us3-kea-db-01": Reply(error="verb 'foresee' is given")})
    said = drift.foresee(stack, site, [("us3-kea-db-01", "base")])
    assert said == ["us3-kea-db-01 could not be asked what it would refuse: verb 'foresee' is given"]


def test_command_speaks_json_and_exits_with_the_reports_code(answers: Callable[..., list[Any]]) -> None:
    names = ("us3-kea-db-01", "us3-kea-db-02", "us3-kea-witness")
    answers({**{name: reply() for name in names}, "us3-kea-db-02": reply(EDIT)})
    done = CliRunner().invoke(command, ["--stack", "us3", "--json"], standalone_mode=False)
    assert done.return_value == Exit.CHANGES
    assert [d["host"] for d in json.loads(done.output)["drift"]] == ["us3-kea-db-02"]


def test_accept_and_restore_exclude_each_other() -> None:
    done = CliRunner().invoke(
        command, ["--stack", "us3", "--accept", "a:/b", "--restore", "a:/b"], standalone_mode=False
    )
    assert isinstance(done.exception, CommandError)
    assert done.exception.code is Exit.USAGE
