"""The applier's own verbs: JSON on stdin, one JSON object on stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hostkit import (
    VERSION,
    applied,
    applier,
    check,
    edits,
    firewall,
    install,
    lock,
    patroni_repair,
    pending,
    prune,
    store,
    tls,
    transient,
)
from hostkit import bundle as bundles
from hostkit.errors import BadInput, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostkit.context import Context

INPUT_CAP = 16 << 20
"""Bytes of stdin that are read at most."""
_APPLY_BASE = 2400.0
"""Seconds that packages, files and units of a bundle may take, besides the lock, its steps and its probes."""
_CERTIFY_LIMIT = 900.0
_PRUNE_LIMIT = 900.0
_RESTORE_LIMIT = 3600.0
_BUNDLE = "bundle:"
"""Before a bundle's name where ``restore`` is to apply it again as it was: for what its steps bring about."""


def bootstrap(ctx: Context, argv: list[str]) -> int:
    """Replace the applier itself by these sources."""
    _no_arguments("bootstrap", argv)
    try:
        return _answer(install.install(_object("bootstrap", _input()), ctx.root))
    except install.InstallError as e:
        raise (BadInput if e.code == BadInput.exit_code else HostError)(str(e)) from None


def secrets(ctx: Context, argv: list[str]) -> int:
    """Make these the host's secrets; print the names that changed."""
    _no_arguments("secrets", argv)
    given = _only(_object("secrets", _input()), "secrets")
    if not isinstance(given, dict):
        msg = f"secrets: given is {type(given).__name__}, allowed is an object of names and values"
        raise BadInput(msg)
    with lock.held(ctx, "secrets"):
        return _answer({"changed": store.put(ctx, given)})


def keys(ctx: Context, argv: list[str]) -> int:
    """Make the missing keys of these certificates; print their requests."""
    _no_arguments("keys", argv)
    given = _only(_object("keys", _input()), "names")
    if not isinstance(given, list):
        msg = f"names: given is {type(given).__name__}, allowed is a list of certificate names"
        raise BadInput(msg)
    with lock.held(ctx, "keys"):
        return _answer({"requests": tls.requests(ctx, given)})


def certificates(ctx: Context, argv: list[str]) -> int:
    """Store certificates, and put them where applied bundles use them."""
    _no_arguments("certificates", argv)
    text = _input()
    _certificates_request(text)
    return _answer(_done(ctx, "certificates", "tls", text, _CERTIFY_LIMIT))


def apply(ctx: Context, argv: list[str]) -> int:
    """Bring a bundle into force."""
    _no_arguments("apply", argv)
    text = _input()
    bundle = bundles.parse(text)
    return _answer(_done(ctx, "apply", bundle.name, text, _APPLY_BASE + bundle.time_limit))


def prune_bundles(ctx: Context, argv: list[str]) -> int:
    """Take away what bundles placed that the site no longer has on this host."""
    _no_arguments("prune", argv)
    text = _input()
    _prune_request(text)
    return _answer(_done(ctx, "prune", "bundles", text, _PRUNE_LIMIT))


def accept(ctx: Context, argv: list[str]) -> int:
    """Remember edited files as seen: the next apply may write over them."""
    _no_arguments("accept", argv)
    names = _names("accept", _input())
    with lock.held(ctx, "accept"):
        return _answer(edits.accept(ctx, names))


def restore(ctx: Context, argv: list[str]) -> int:
    """Put files, units or packages back to what was applied."""
    _no_arguments("restore", argv)
    text = _input()
    _names("restore", text)
    return _answer(_done(ctx, "restore", "by-hand", text, _RESTORE_LIMIT))


def foresee(ctx: Context, argv: list[str]) -> int:
    """Print why these bundles, and this list of bundles, would be refused now; changes nothing."""
    _no_arguments("foresee", argv)
    given = _object("foresee", _input())
    if not given.keys() <= {"bundles", "prune"} or not isinstance(given.get("bundles", []), list):
        msg = f"foresee: given keys {sorted(given)}, allowed: bundles (a list) and prune (as for the verb 'prune')"
        raise BadInput(msg)
    parsed = [bundles.parse(json.dumps(bundle)) for bundle in given.get("bundles", [])]
    reasons = {bundle.name: applier.would_refuse(ctx, bundle) for bundle in parsed}
    if "prune" in given:
        host, names = _prune_request(json.dumps(given["prune"]))
        reasons["prune"] = prune.would_refuse(ctx, host, names)
    return _answer({"refused": {name: reason for name, reason in reasons.items() if reason is not None}})


def check_drift(ctx: Context, argv: list[str]) -> int:
    """Print what is not as it was applied."""
    _no_arguments("check", argv)
    return _answer(check.drift(ctx))


def run_request(ctx: Context, argv: list[str]) -> int:
    """Inside the transient unit: do the work that the front left in a file."""
    if len(argv) != 1:
        msg = f"run-request: given {argv}, allowed is one file"
        raise BadInput(msg)
    return transient.run_request(ctx, argv[0], _WORK)


def version(ctx: Context, argv: list[str]) -> int:
    """Print the version, what is applied here, with the digest of each bundle as it was sent, and ``unfit``.

    ``unfit`` is why this node's database can follow no leader any more, empty when nothing says so.

    A bundle whose last run did not come to its end is none that anybody sent: its digest says so, and whoever
    compares sends it again. Else a run that was cut, and the site file put back after it, would leave its half.
    """
    _no_arguments("version", argv)
    digests = applied.digests(ctx)
    digests |= {name: "unfinished" for name in pending.left(ctx) if name in digests}
    if "firewall" in digests and firewall.unconfirmed(ctx):
        digests["firewall"] = "unfinished"  # it came to its end, and was taken back
    answer = {"version": VERSION, "format": bundles.FORMAT, "applied": sorted(digests), "digests": digests}
    return _answer({**answer, "unfit": patroni_repair.unfit(ctx)})


def _done(ctx: Context, verb: str, label: str, text: str, limit: float) -> dict[str, Any]:
    if ctx.in_place:
        return transient.through_unit(ctx, verb, label, text, limit + ctx.lock_wait)
    return _WORK[verb](ctx, text)


def _apply_work(ctx: Context, text: str) -> dict[str, Any]:
    bundle = bundles.parse(text)
    with lock.held(ctx, f"bundle {bundle.name}"):
        return applier.apply(ctx, bundle).as_dict()


def _certificates_work(ctx: Context, text: str) -> dict[str, Any]:
    ca, given = _certificates_request(text)
    with lock.held(ctx, "certificates"):
        return applier.certify(ctx, tls.validated(ctx, ca, given))


def _prune_work(ctx: Context, text: str) -> dict[str, Any]:
    host, names = _prune_request(text)
    applier.refuse_other_host(ctx, "the list of bundles", host)
    with lock.held(ctx, "prune"):
        return prune.others(ctx, host, names)


def _restore_work(ctx: Context, text: str) -> dict[str, Any]:
    names = _names("restore", text)
    whole = [name.removeprefix(_BUNDLE) for name in names if name.startswith(_BUNDLE)]
    with lock.held(ctx, "restore"):
        answer = edits.restore(ctx, [name for name in names if not name.startswith(_BUNDLE)])
        for name in whole:
            done = applier.apply_again(ctx, name).as_dict()
            answer.setdefault("steps", {}).update(
                {f"{name}: {step}": became for step, became in done["steps"].items()}
            )
            answer["files"].update(done["files"])
            answer["units"].update(done["units"])
            answer["packages"] += done["packages"]
            answer["changed"] = answer["changed"] or done["changed"]
        return answer


_WORK: Mapping[str, Callable[[Context, str], dict[str, Any]]] = {
    "apply": _apply_work,
    "certificates": _certificates_work,
    "prune": _prune_work,
    "restore": _restore_work,
}


def _prune_request(text: str) -> tuple[str, list[str]]:
    """Return host and bundle names; the base bundle must be among them: a host without it is none of ours."""
    given = _object("prune", text)
    host, names = given.get("host"), given.get("bundles")
    good = isinstance(names, list) and all(isinstance(n, str) and bundles.NAME.match(n) for n in names)
    if set(given) != {"host", "bundles"} or not isinstance(host, str) or not good or "base" not in (names or []):
        msg = f"prune: given keys {sorted(given)}, allowed: host and bundles (a list of bundle names, with 'base')"
        raise BadInput(msg)
    return host, list(names or [])


def _names(verb: str, text: str) -> list[str]:
    names = _only(_object(verb, text), "names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        msg = f"{verb}: names: allowed is a list of at least one path, unit or package"
        raise BadInput(msg)
    return names


def _certificates_request(text: str) -> tuple[object, dict[str, object]]:
    given = _object("certificates", text)
    if set(given) != {"ca", "certificates"} or not isinstance(given["certificates"], dict):
        msg = f"certificates: given keys {sorted(given)}, allowed: ca and certificates (an object)"
        raise BadInput(msg)
    return given["ca"], given["certificates"]


def _input() -> str:
    data = sys.stdin.buffer.read(INPUT_CAP + 1)
    if len(data) > INPUT_CAP:
        msg = f"stdin: given are more than {INPUT_CAP >> 20} MiB, which is the most allowed"
        raise BadInput(msg)
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        msg = f"stdin: given is not UTF-8 (byte {e.start})"
        raise BadInput(msg) from None


def _object(verb: str, text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as e:
        # Only the place: the text may hold secrets.
        where = f"line {e.lineno}, column {e.colno}" if isinstance(e, json.JSONDecodeError) else "somewhere"
        msg = f"{verb}: stdin is not JSON ({where})"
        raise BadInput(msg) from None
    if not isinstance(given, dict):
        msg = f"{verb}: given is {type(given).__name__}, allowed is a JSON object"
        raise BadInput(msg)
    return given


def _only(given: Mapping[str, Any], key: str) -> object:
    if set(given) != {key}:
        msg = f"given keys {sorted(given)}, allowed: {key}"
        raise BadInput(msg)
    return given[key]


def _no_arguments(verb: str, argv: list[str]) -> None:
    if argv:
        msg = f"{verb}: given arguments {argv}, allowed are none; its input is JSON on stdin"
        raise BadInput(msg)


def _answer(data: Mapping[str, Any]) -> int:
    # Indented: some readers of our output stall on lines of 64 KiB.
    sys.stdout.write(json.dumps(data, indent=2, sort_keys=True) + "\n")
    sys.stdout.flush()
    return 0
