"""A writer and a reader on the site's virtual address: processes of their own, each with a log of its attempts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keadb import ports
from keadb.clients import conninfo
from keadb.logins import KEA_OWNER, KEA_READ
from keadb.pki import ca_certificate
from keadb.site import Site
from ops import drill_measure
from ops.drill_site import Drilled
from ops.stacks import REPOSITORY


@dataclass(kw_only=True)
class Client:
    """A writer or a reader, and its log."""

    process: subprocess.Popen[str]
    log: Path
    stop: Path

    def attempts(self, began: float) -> list[drill_measure.Attempt]:
        """Return every attempt, in seconds since a moment of the monotonic clock."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return drill_measure.attempts_of(text, began)

    def served_for(self, seconds: float) -> bool:
        """Say whether it was served at least once in each of the last seconds."""
        now = time.monotonic()
        recent = {int(-a.end) for a in self.attempts(now) if a.acknowledged and -a.end < seconds}
        return recent >= set(range(int(seconds)))


def read_way(site: Site) -> str:
    """Return a reader's conninfo: the virtual address and nothing past it, so that a run shows what that does."""
    return (
        f"host={site.standby_name} hostaddr={site.network.vip} port={ports.READ} dbname=kea sslmode=verify-full "
        "connect_timeout=2"
    )


@contextlib.contextmanager
def client(drilled: Drilled, what: str, logs: Path) -> Iterator[Client]:
    """Have a writer or a reader on the virtual address; it has ended afterwards."""
    site = drilled.site
    pair, way = (KEA_OWNER, conninfo(site)) if what == "write" else (KEA_READ, read_way(site))
    letter = pair.active(site.logins)
    ca, log, stop = drilled.folder / "ca.crt", logs / f"{what}.log", logs / f"{what}.stop"
    ca.write_text(ca_certificate(drilled.secrets["ca_key"], site), encoding="ascii")
    for stale in (log, stop):
        stale.unlink(missing_ok=True)
    request = {
        "conninfo": f"{way} user={pair.login(letter)} sslrootcert={ca}",
        "password": drilled.secrets[pair.secret(letter)],
        "log": str(log),
        "stop": str(stop),
    }
    with (logs / f"{what}.err").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(  # noqa: S603 -- our own client
            [sys.executable, "-m", "ops.drill_client", what],
            stdin=subprocess.PIPE, stdout=errors, stderr=errors, text=True, cwd=REPOSITORY,
            start_new_session=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    try:
        assert process.stdin is not None  # noqa: S101 -- a pipe was asked for
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        yield Client(process=process, log=log, stop=stop)
    finally:
        stop.touch()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stop.unlink(missing_ok=True)
