"""Reading bundles: what the program writes is read, what is wrong is told all at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostkit import bundle
from hostkit.errors import BadInput
from keadb import bundle as core
from tests.unit.hostkit.fakes import HOST

GOOD = core.Bundle(
    name="db",
    host=HOST,
    packages=core.Packages(install=("db", "xy=1.2-3"), hold=("db",), mask=("db.service",)),
    files={"/etc/db": core.File(content="@secret:a@", mode="0640")},
    tls={
        "one": core.TlsUse(key="/t/1.key", cert="/t/1.crt", ca="/t/ca", owner="db", group="db"),
        "two": core.TlsUse(key="/t/2.key", cert="/t/2.crt", ca="/t/ca", owner="db", group="db"),
    },
    units={"db.service": core.Unit(start=core.Start.CLUSTER, restart_on=("/etc/db",), reload_on=("/t/ca",))},
    steps=(core.Step(name="s", run=("a",), check=("b",), timeout=5),),
    probes=(core.Probe(name="p", run=("c",), timeout=7),),
    inputs={"other": "digest"},
)


def test_what_the_program_writes_is_read() -> None:
    """Both sides agree on the format and on the way to name secrets."""
    read = bundle.parse(GOOD.to_json({"a": "f"}))
    assert (read.name, read.host, read.files["/etc/db"].mode, read.secrets) == ("db", HOST, 0o640, ("a",))
    assert read.tls["two"].ca == "/t/ca"
    assert read.units["db.service"].restart_on == ("/etc/db",)
    assert (read.steps[0].check, read.time_limit) == (("b",), 17)
    assert core.FORMAT == bundle.FORMAT


BAD: list[tuple[str, Any, str]] = [
    ("bundle", "../x", r'bundle.bundle: given "../x", allowed: lower-case letters'),
    ("host", 5, r"bundle.host: given 5, allowed: a host name"),
    ("extra", 1, r"bundle.extra: unknown key, allowed: bundle, files"),
    ("packages/instal", [], r"packages.instal: unknown key, allowed: hold, install, mask"),
    ("packages/install", "x", r'packages.install: given "x", allowed: a list'),
    ("packages/install/0", "-o=evil", r'packages.install\[0\]: given "-o=evil", allowed: NAME or NAME=VERSION'),
    ("packages/mask/0", "db", r'packages.mask\[0\]: given "db", allowed: a unit name with its ending'),
    ("files//etc//x", {}, r"files./etc//x: given .*, allowed: an absolute, normalised"),
    ("files//var/lib/keadb/secrets.json", {}, r"allowed: a path that is not the applier's own"),
    ("files//usr/lib/keadb/keadb-apply", {}, r"allowed: a path that is not the applier's own"),
    ("files//var/lib/keadb/tls/x.key", {}, r"allowed: a path that is not the applier's own"),
    ("files//etc/x", {"content": "", "owner": "root", "group": "root"}, r"files./etc/x.mode: missing"),
    (
        "files//etc/db/below",
        {"content": "", "owner": "root", "group": "root", "mode": "0644"},
        r"files./etc/db/below: it would lie below /etc/db, which is a file of this bundle too",
    ),
    ("files//etc/db/mode", "rw-r--r--", r'mode: given "rw-r--r--", allowed: an octal string'),
    ("files//etc/db/mode", 420, r"mode: given 420, allowed: an octal string"),
    ("files//etc/db/owner", "no one", r'owner: given "no one", allowed: a user name'),
    ("files//etc/db/content", None, r"content: given null, allowed: a string"),
    ("tls/one/key", "key", r'tls.one.key: given "key", allowed: an absolute'),
    ("tls/one/key", "/etc/db", r"tls.one: /etc/db is placed twice"),
    ("tls/one/ca", "/t/2.key", r"/t/2.key is placed twice"),
    ("tls/one/owner", "", r'tls.one.owner: given "", allowed: a user name'),
    ("units/x", {"start": "now", "restart_on": [], "reload_on": []}, r"units.x: given .*a unit name with its ending"),
    ("units/db.service/start", "later", r'start: given "later", allowed: "now" or "cluster"'),
    ("units/db.service/restart_on", ["/etc/other"], r"restart_on: /etc/other is not placed by this bundle"),
    ("steps/0/run", [], r"steps\[0\].run: given \[\], allowed: a list of strings"),
    ("steps/0/run", "rm -rf", r"steps\[0\].run: given .*allowed: a list of strings"),
    ("steps/0/timeout", 0, r"steps\[0\].timeout: given 0, allowed: a whole number of seconds above 0"),
    ("steps/0/timeout", True, r"steps\[0\].timeout: given true, allowed: a whole number"),
    ("steps/0/check", ["", "x"], r"steps\[0\].check: given"),
    ("probes/0/name", "a\nb", r"probes\[0\].name: given .*allowed: a name in printable ASCII"),
    ("secrets/a", 5, r"secrets.a: given 5, allowed: a fingerprint or null"),
    ("secrets/A-B", None, r"secrets.A-B: given .*allowed: a name of"),
    ("inputs/x", 5, r"inputs.x: given 5, allowed: a string"),
]


def damaged(where: str, value: Any) -> str:
    """The good bundle with one place overwritten; ``//`` starts a key that is a path."""
    data = GOOD.as_dict()
    if where.startswith("files//"):
        path, _, key = where.removeprefix("files/").partition("/mode")
        inner = [k for k in ("mode", "owner", "content") if where.endswith(f"/{k}")]
        path = where.removeprefix("files/").removesuffix(f"/{inner[0]}") if inner else where.removeprefix("files/")
        keys = ["files", path, *inner]
    else:
        keys = where.split("/")
    target: Any = data
    for key in keys[:-1]:
        target = target[int(key) if isinstance(target, list) else key]
    target[int(keys[-1]) if isinstance(target, list) else keys[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(("where", "value", "message"), BAD)
def test_one_wrong_thing_is_told_with_place_given_and_allowed(where: str, value: Any, message: str) -> None:
    """One row for each rule."""
    with pytest.raises(BadInput, match=message):
        bundle.parse(damaged(where, value))


def test_all_problems_come_in_one_error() -> None:
    """The operator mends them in one go."""
    data = GOOD.as_dict()
    data["host"] = 5
    data["steps"][0]["timeout"] = -1
    del data["probes"]
    with pytest.raises(BadInput, match=r"bundle db: 3 problem\(s\):") as e:
        bundle.parse(json.dumps(data))
    assert "bundle.probes: missing" in str(e.value)


@pytest.mark.parametrize("text", ["", "[]", "5", "{", '{"format": 2}', '{"format": 1}'])
def test_what_is_no_bundle_at_all_is_bad_input(text: str) -> None:
    """No other exception."""
    with pytest.raises(BadInput):
        bundle.parse(text)


def test_two_steps_of_one_name_are_bad_input() -> None:
    """The summary has one line for each."""
    data = GOOD.as_dict()
    data["steps"] *= 2
    with pytest.raises(BadInput, match="steps: two are named 's'"):
        bundle.parse(json.dumps(data))
