"""Installing the applier itself: sources in, one deterministic zipapp out.

Self-contained, because it also runs on a host that has no applier yet: its text is executed there and ``main`` is
called with the request. Sources that do not compile or do not run here never replace a working applier.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET = "usr/lib/keadb/keadb-apply"
_LOCK = "run/keadb/lock"
_LOCK_LIMIT = 300.0
_INTERPRETER = "/usr/bin/python3"
# -I: no variable, user folder or current folder of whoever calls it decides what root imports.
_SHEBANG = f"#!{_INTERPRETER} -I\n".encode()
_ENTRY = "import sys\n\nfrom hostkit.__main__ import main\n\nsys.exit(main())\n"
_MODULE = re.compile(r"hostkit/[a-z_][a-z0-9_]*\.py\Z")
_NEEDED = ("hostkit/__init__.py", "hostkit/__main__.py")
_OLDEST = (3, 11)
_FORMAT = 1


class InstallError(Exception):
    """The request is not one to install; nothing was replaced. ``code`` is the exit code that says why."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def build(request: object) -> bytes:
    """Return the zipapp for a request ``{"format": 1, "modules": {path: source}}``: same sources, same bytes."""
    if not isinstance(request, dict) or request.get("format") != _FORMAT:
        given = request.get("format") if isinstance(request, dict) else type(request).__name__
        msg = f"request: given format {given!r}, allowed is an object of format {_FORMAT}"
        raise InstallError(msg)
    modules = request.get("modules")
    if set(request) != {"format", "modules"} or not isinstance(modules, dict):
        msg = f"request: given keys {sorted(request)}, allowed: format and modules (an object)"
        raise InstallError(msg)
    missing = [name for name in _NEEDED if name not in modules]
    if missing:
        msg = f"modules: {', '.join(missing)} missing"
        raise InstallError(msg)
    for name, source in modules.items():
        _check(name, source)
    out = io.BytesIO(_SHEBANG)
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, source in sorted({**modules, "__main__.py": _ENTRY}.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, source)
    return out.getvalue()


def _check(name: object, source: object) -> None:
    if not isinstance(name, str) or not _MODULE.match(name) or not isinstance(source, str):
        msg = f"modules: given {name!r} ({type(source).__name__}), allowed are texts named hostkit/NAME.py"
        raise InstallError(msg)
    try:
        compile(source, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as e:
        msg = f"modules: {name} does not compile with Python {sys.version.split()[0]}: {e}"
        raise InstallError(msg) from None


def install(request: object, root: Path = Path("/")) -> dict[str, Any]:
    """Install the applier under a root unless these very bytes are there; return what became of it.

    InstallError when the request is bad, the new applier cannot be written or does not run here, or another run
    holds the lock.
    """
    if sys.version_info[:2] < _OLDEST:
        msg = f"Python {sys.version.split()[0]} is too old on this host: allowed is 3.11 and newer"
        raise InstallError(msg, 1)
    content = build(request)
    result = {"changed": False, "digest": hashlib.sha256(content).hexdigest()}
    target = root / TARGET
    lock = _locked(root)
    try:
        if not _as_wanted(target, content):
            try:
                _replace(target, content)
            except OSError as e:
                msg = f"/{TARGET} cannot be written: {e.strerror or type(e).__name__}; mend that and run it again"
                raise InstallError(msg, 1) from None
            result["changed"] = True
    finally:
        os.close(lock)
    return result


def _as_wanted(target: Path, content: bytes) -> bool:
    if target.is_symlink() or not target.is_file():
        return False
    info = target.stat()
    return (info.st_mode & 0o7777, info.st_uid) == (0o755, os.geteuid()) and target.read_bytes() == content


def _replace(target: Path, content: bytes) -> None:
    for folder in reversed(target.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask
    part = target.with_name(f".{target.name}.keadb-new")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(content)
            os.fchmod(f.fileno(), 0o755)
            f.flush()
            os.fsync(f.fileno())
        _try(part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder_fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder_fd)
    os.close(folder_fd)


def _try(part: Path) -> None:
    argv = [sys.executable or _INTERPRETER, "-I", str(part), "version"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own file
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        msg = f"the new applier does not run on this host, the old one stays: {last}"
        raise InstallError(msg, 1)


def _locked(root: Path) -> int:
    """Take the host's lock: a running applier must not have its own file replaced under it."""
    path = root / _LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + _LOCK_LIMIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "an unknown run"
                os.close(fd)
                msg = f"waited {_LOCK_LIMIT:g} s for the lock of this host, held by {holder}; try again later"
                raise InstallError(msg, 75) from None
            time.sleep(0.2)
        else:
            return fd


def main(request: Mapping[str, Any] | None = None, root: Path = Path("/")) -> int:
    """Install from the request, or from JSON on stdin; print the result, or one clear error."""
    try:
        given = json.load(sys.stdin) if request is None else request
        result = install(given, root)
    except InstallError as e:
        sys.stderr.write(f"keadb-apply bootstrap: {e}\n")
        return e.code
    except (OSError, ValueError) as e:
        sys.stderr.write(f"keadb-apply bootstrap: {type(e).__name__}: {e}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
