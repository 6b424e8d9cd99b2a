"""Puts the sample reservations into a lab's database, the way automation would: as owner, over TLS, to the leader.

``load`` collects what is needed and starts this module again inside the lab's network; user, password and the CA
certificate travel on standard input, never on a command line or in the environment. Loading twice changes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from lab.errors import LabError
from lab.reservations import COUNT, HW_ADDRESS, generate

if TYPE_CHECKING:
    from lab.api import Lab

_REPOSITORY = Path(__file__).resolve().parent.parent
_TIMEOUT = 120

# An anti-join instead of ON CONFLICT: that would use up a number of the sequence for each row that is there.
INSERT = """
INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type, dhcp4_subnet_id, ipv4_address, hostname)
SELECT n.identifier, %(kind)s, n.subnet, n.address, n.hostname
  FROM unnest(%(identifiers)s::bytea[], %(subnets)s::bigint[], %(addresses)s::bigint[], %(hostnames)s::text[])
    AS n (identifier, subnet, address, hostname)
 WHERE NOT EXISTS (SELECT FROM hosts AS h
                    WHERE h.dhcp_identifier = n.identifier
                      AND h.dhcp_identifier_type = %(kind)s
                      AND h.dhcp4_subnet_id = n.subnet)
 ORDER BY n.subnet, n.address
"""
TOTAL = "SELECT count(*) FROM hosts WHERE dhcp4_subnet_id IS NOT NULL"


def parameters(count: int = COUNT) -> dict[str, Any]:
    """Return the statement's parameters: one list a column."""
    rows = list(generate(count))
    return {
        "kind": HW_ADDRESS,
        "identifiers": [row.hw_address for row in rows],
        "subnets": [row.subnet_id for row in rows],
        "addresses": [int(row.address) for row in rows],
        "hostnames": [row.hostname for row in rows],
    }


def insert(request: dict[str, str]) -> dict[str, int]:
    """Connect and insert what is missing, in one transaction; return how many were added, and how many there are."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".crt") as ca:
        ca.write(request["ca"])
        ca.flush()
        with psycopg.connect(
            request["conninfo"],
            user=request["user"],
            password=request["password"],
            sslrootcert=ca.name,
            application_name="keadb-lab-load",
        ) as connection:
            added = connection.execute(INSERT, parameters()).rowcount
            total = connection.execute(TOTAL).fetchone()
    return {"added": added, "total": int(total[0]) if total else 0}


def load(lab: Lab) -> dict[str, int]:
    """Load the sample reservations into the lab's database; LabError when that fails."""
    # Imported here: the half of this module that runs inside the lab's network needs none of it.
    from keadb.clients import direct_conninfo  # noqa: PLC0415
    from keadb.pki import ca_certificate  # noqa: PLC0415
    from keadb.stackfile import read_stack  # noqa: PLC0415
    from lab import secrets  # noqa: PLC0415

    spec = lab.spec
    if not spec.site_file.exists():
        message = f"lab {spec.name} has no site file; start it with: keadb lab up --name {spec.name}"
        raise LabError(message)
    site = read_stack(spec.site_file.read_text(encoding="utf-8"), stack=spec.name, source=str(spec.site_file))
    values = secrets.values(spec)
    user = f"kea_owner_{site.logins.owner}"
    request = {
        "conninfo": direct_conninfo(site),
        "user": user,
        "password": values[f"{user}_password"],
        "ca": ca_certificate(values["ca_key"], site),
    }
    done = subprocess.run(  # noqa: S603 -- this module, inside the lab's network
        lab.ns_argv([sys.executable, "-m", "lab.load"]),
        check=False,
        capture_output=True,
        text=True,
        input=json.dumps(request),
        timeout=_TIMEOUT,
        cwd=_REPOSITORY,
    )
    if done.returncode != 0:
        message = f"the reservations could not be loaded as {user}: {done.stderr.strip()}"
        raise LabError(message)
    return dict(json.loads(done.stdout))


def main() -> int:
    """Read the request from standard input; print the result as JSON."""
    try:
        print(json.dumps(insert(json.load(sys.stdin))))  # noqa: T201 -- a command's output
    except psycopg.Error as error:
        print(f"{type(error).__name__}: {error}".strip(), file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
