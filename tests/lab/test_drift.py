"""What somebody does by hand at night is found, shown, and never silently undone; what leaves a bundle goes away."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from keadb.bundle import Bundle, File, Unit
from tests.lab.harness import wait_for

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab

CONFIG = "/etc/patroni/config.yml"
SYSCTL = "/etc/sysctl.d/60-keadb.conf"
HASHES = "find /etc /var/lib/keadb/applied /var/lib/keadb/pending -type f | sort | xargs sha256sum"


def _drift(site: Site, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = site.keadb("drift", "--stack", site.name, "--json", *arguments, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def _found(report: dict[str, Any]) -> set[tuple[str, str, str, bool]]:
    return {(d["host"], d["name"], d["is"], d["accepted"]) for d in report["drift"]}


def _sh(site: Site, host: str, script: str) -> str:
    done = site.lab.exec(host, ["sh", "-ec", script])
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def _more_clients(data: dict[str, Any]) -> None:
    data["network"]["clients"] = [*data["network"]["clients"], "172.30.30.77"]


def test_edits_of_the_night(settled: Site) -> None:
    """Found by drift with the difference; an up that would undo one is refused and changes nothing on that host."""
    site, host = settled, settled.database_hosts[1]
    witness = f"{site.name}-kea-witness"
    assert _drift(site)[0] == 0

    _sh(site, host, f"echo '# tuned at night' >> {CONFIG}; echo '# by hand' >> {SYSCTL}; apt-mark unhold patroni")
    _sh(site, witness, "systemctl stop keadb-etcd")
    leader = site.leader()
    assert leader
    site.sql(leader, "GRANT CONNECT ON DATABASE kea TO PUBLIC")
    setting = "postgresql.parameters.log_lock_waits"
    _sh(site, leader, f"patronictl -c {CONFIG} edit-config --force --set {setting}=false")
    code, report = _drift(site)
    assert (code, _found(report)) == (
        2,
        {
            (host, CONFIG, "changed", False),
            (host, SYSCTL, "changed", False),
            (host, "patroni", "not held", False),
            (witness, "keadb-etcd.service", "inactive (dead)", False),
            (witness, setting, next(d["is"] for d in report["drift"] if d["name"] == setting), False),
            (leader, "revoke CONNECT on DATABASE kea from PUBLIC", "is due again", False),
        },
    )
    assert "+# tuned at night" in next(d["diff"] for d in report["drift"] if d["name"] == CONFIG)
    shown = site.keadb("drift", "--stack", site.name, check=False).stdout
    assert [name for name, value in site.secrets().items() if value.strip() in shown + json.dumps(report)] == []

    names = [f"{host}:{SYSCTL}", f"{host}:patroni", f"{witness}:keadb-etcd.service"]
    names += [f"{witness}:bundle:patroni-converge", f"{leader}:bundle:kea-roles"]
    site.keadb("drift", "--stack", site.name, *(word for name in names for word in ("--restore", name)))
    assert _found(_drift(site)[1]) == {(host, CONFIG, "changed", False)}

    with site.edited(_more_clients):
        foreseen = site.keadb("preview", "--stack", site.name, "--check-hosts").stderr
        assert f"{host}: patroni: 'up' would be refused" in foreseen
        # The firewall has let the new client through by then: it goes before all others, and was not edited.
        others = f"{HASHES} | grep -v firewall"
        before = _sh(site, host, others)
        refused = site.keadb("up", "--stack", site.name, "--yes", check=False)
        assert refused.returncode == 1
        assert f"{host}: patroni" in refused.stderr
        for line in ("+# tuned at night", f"keadb drift --stack {site.name} --accept {host}:{CONFIG}"):
            assert line in refused.stderr, refused.stderr
        assert _sh(site, host, others) == before

        site.keadb("drift", "--stack", site.name, "--accept", f"{host}:{CONFIG}")
        code, report = _drift(site)
        assert (code, _found(report)) == (0, {(host, CONFIG, "changed", True)})
        site.keadb("up", "--stack", site.name, "--yes")
        text = _sh(site, host, f"cat {CONFIG}")
        assert "172.30.30.77" in text
        assert "tuned at night" not in text
        assert _found(_drift(site)[1]) == set()
    site.keadb("up", "--stack", site.name, "--yes")
    site.keadb("preview", "--stack", site.name, "--expect-no-changes")
    site.wait_until_healthy()
    wait_for("a healthy etcd", lambda: not site.status().get("problems"))


def _apply(site: Site, host: str, verb: str, request: str) -> subprocess.CompletedProcess[str]:
    return site.lab.exec(host, ["/usr/lib/keadb/keadb-apply", verb], stdin=request)


def test_what_leaves_a_bundle_and_a_whole_bundle_goes_away(settled: Site) -> None:
    """Under the real systemd: stopped, disabled, unknown to it; everything else stays as it was."""
    site, host = settled, f"{settled.name}-kea-witness"
    before = _sh(site, host, HASHES)
    bundles = json.loads(_apply(site, host, "version", "").stdout)["applied"]
    unit = "/etc/systemd/system/keadb-drill.service"
    files = {
        unit: File(content="[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"),
        "/etc/keadb/drill": File(content="x\n"),
    }
    units = {"keadb-drill.service": Unit(restart_on=(unit,))}
    made = _apply(site, host, "apply", Bundle(name="drill", host=host, files=files, units=units).to_json())
    assert json.loads(made.stdout)["units"] == {"keadb-drill.service": "started"}

    less = Bundle(name="drill", host=host, files={unit: files[unit]}, units=units)
    assert json.loads(_apply(site, host, "apply", less.to_json()).stdout)["files"] == {"/etc/keadb/drill": "removed"}
    assert _sh(site, host, "systemctl is-active keadb-drill").strip() == "active"

    gone = json.loads(_apply(site, host, "prune", json.dumps({"host": host, "bundles": bundles})).stdout)
    assert (gone["bundles"], gone["units"]) == (["drill"], {"keadb-drill.service": "stopped"})
    state = _sh(site, host, "systemctl show -p LoadState -p ActiveState keadb-drill").split()
    assert sorted(state) == ["ActiveState=inactive", "LoadState=not-found"]
    assert _sh(site, host, HASHES) == before

    refused = _apply(site, host, "prune", json.dumps({"host": host, "bundles": ["base"]}))
    assert refused.returncode == 3
    assert "keadb-etcd.service would go, but runs" in refused.stderr
    assert _sh(site, host, HASHES) == before
