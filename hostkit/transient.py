"""Running a change as a transient systemd unit, so that a cut connection does not cut it half way.

The front process (what SSH started) leaves the request in a file, starts the unit and waits for its result. When
the front dies, the unit goes on; a later run waits for the lock and finds the work done.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import signal
import stat
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from hostkit import files, store
from hostkit.errors import BadInput, CommandFailed, HostError, Locked, Refused
from hostkit.install import TARGET
from hostkit.units import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from hostkit.context import Context

FOLDER = "/run/keadb/requests"
_POLL = 0.2
_LOOK_EVERY = 10
"""Polls between two looks at the unit's state."""
_LEFT_OVER = 86400.0
"""Seconds after which a request whose front died is cleaned away."""
_KINDS: Mapping[int, type[HostError]] = {kind.exit_code: kind for kind in (HostError, BadInput, Refused, Locked)}


def through_unit(ctx: Context, verb: str, label: str, text: str, limit: float) -> dict[str, Any]:
    """Run a verb's work as a unit of its own and return its summary, or raise its error.

    ``limit`` is the most seconds the unit may take. HostError when it ends without leaving a result.
    """
    _clean(ctx)
    name = f"keadb-{verb}-{label}-{secrets.token_hex(4)}"
    request = f"{FOLDER}/{name}.json"
    content = json.dumps({"verb": verb, "text": text, "lock_wait": ctx.lock_wait})
    files.make_private(ctx, FOLDER)
    files.replace(ctx, request, content.encode(), mode=0o600, owner=files.Owner.root(ctx))
    with _goes_on(name):
        argv = ["systemd-run", f"--unit={name}", "--collect", "--no-block", "--quiet", "--service-type=exec"]
        argv += [f"--property=RuntimeMaxSec={limit:.0f}", "--property=TimeoutStopSec=20"]
        try:
            ctx.system.run([*argv, "--", f"/{TARGET}", "run-request", request], timeout=30)
        except HostError:
            files.remove(ctx, request)
            raise
        return _result(ctx, name, request)


def _result(ctx: Context, name: str, request: str) -> dict[str, Any]:
    polls = 0
    shown = 0
    while True:
        # The unit's state is read before the result: a result is always there before the unit is gone.
        gone = polls % _LOOK_EVERY == _LOOK_EVERY - 1 and not _exists(ctx, name)
        found = _read(ctx, f"{request}.result")
        shown = _show(ctx, f"{request}.progress", shown)
        if found is not None:
            files.remove(ctx, f"{request}.progress")
            files.remove(ctx, f"{request}.result")
            break
        if gone:
            files.remove(ctx, request)
            files.remove(ctx, f"{request}.progress")
            msg = f"unit {name} ended without a result; last journal lines:\n{journal(ctx, f'{name}.service')}"
            raise HostError(msg)
        polls += 1
        ctx.system.sleep(_POLL)
    if found["exit"] == 0:
        return dict(found["summary"])
    raise _KINDS.get(found["exit"], HostError)(found["error"])


def _show(ctx: Context, path: str, shown: int) -> int:
    """Pass on to stderr what progress there is beyond ``shown`` bytes; return how far it is passed on now."""
    try:
        data = ctx.path(path).read_bytes()
    except FileNotFoundError:
        return shown
    complete = data.rfind(b"\n") + 1
    if complete > shown:
        sys.stderr.write(store.redact(ctx, data[shown:complete].decode(errors="replace")))
        sys.stderr.flush()
    return max(shown, complete)


def _exists(ctx: Context, name: str) -> bool:
    argv = ["systemctl", "show", "--property=ActiveState", "--value", "--", f"{name}.service"]
    try:
        state = ctx.system.run(argv, timeout=30).stdout.strip()
    except CommandFailed:
        return True  # systemd is busy (a daemon-reload): look again
    return state not in {"inactive", "failed"}


def _read(ctx: Context, path: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(ctx.path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def run_request(ctx: Context, path: str, handlers: Mapping[str, Callable[[Context, str], dict[str, Any]]]) -> int:
    """Inside the unit: do what the request says and leave the result beside it; return the exit code.

    BadInput for a file that is not a request of this host's root.
    """
    found = _request(ctx, path)
    files.remove(ctx, path)
    progress = ctx.path(f"{path}.progress")
    progress.touch(mode=0o600)

    def say(line: str) -> None:
        # A full /run is no reason to break off a change half way.
        with suppress(OSError), progress.open("a", encoding="utf-8") as f:
            f.write(line + "\n")

    own = dataclasses.replace(ctx, lock_wait=float(found["lock_wait"]), say=say)
    result: dict[str, Any]
    with _stopped_by_signal():
        try:
            result = {"exit": 0, "summary": handlers[found["verb"]](own, found["text"])}
        except HostError as e:
            result = {"exit": e.exit_code, "error": str(e)}
        except Exception as e:  # noqa: BLE001 - whatever it is, the front must learn of it
            result = {"exit": 1, "error": f"{found['verb']}: {type(e).__name__}: {e}"}
    owner = files.Owner.root(ctx)
    files.replace(ctx, f"{path}.result", json.dumps(result).encode(), mode=0o600, owner=owner)
    return int(result["exit"])


def _request(ctx: Context, path: str) -> dict[str, Any]:
    if not path.startswith(f"{FOLDER}/") or not path.endswith(".json"):
        msg = f"run-request: given {path!r}, allowed is a request in {FOLDER}"
        raise BadInput(msg)
    try:
        info = ctx.path(path).lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_uid != ctx.system.uid("root") or info.st_mode & 0o077:
            msg = f"run-request: {path} is not a file that only root can read and write"
            raise BadInput(msg)
        return dict(json.loads(ctx.path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        msg = f"run-request: there is no request {path}"
        raise BadInput(msg) from None


def _clean(ctx: Context) -> None:
    for old in ctx.path(FOLDER).glob("keadb-*"):
        if time.time() - old.lstat().st_mtime > _LEFT_OVER:
            old.unlink(missing_ok=True)


@contextmanager
def _goes_on(name: str) -> Iterator[None]:
    """Turn the front's signals into a message: the unit is not touched by them."""
    with _signals(f"was told to stop waiting; unit {name} goes on. Run the same again to see how it ends"):
        yield


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """Turn systemd's stop (the time limit, or someone's systemctl stop) into an error with a result."""
    with _signals("was stopped before its end (its time limit, or systemctl stop); run it again"):
        yield


@contextmanager
def _signals(message: str) -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        msg = f"{message} ({signal.Signals(number).name})"
        raise HostError(msg)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
