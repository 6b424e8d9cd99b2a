"""A parameter set really reaches Patroni, HAProxy and keepalived of a lab, and really leaves them again."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ops.drill_parameters import SETS, bring, in_force, put_back
from ops.stacks import resolve
from tests.lab.harness import MEASURED, wait_for

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab
HAPROXY, KEEPALIVED = "/etc/haproxy/haproxy.cfg", "/etc/keepalived/keepalived.conf"
MIB = 1024 * 1024


def _sh(site: Site, host: str, script: str) -> str:
    done = site.lab.exec(host, ["sh", "-ec", script])
    assert done.returncode == 0, f"{host}: {script}: {done.stderr}"
    return str(done.stdout)


def _live(site: Site) -> dict[str, Any]:
    """Return Patroni's settings as every node shows them under /config; they must agree."""
    shown = [
        json.loads(_sh(site, host, "patronictl -c /etc/patroni/config.yml show-config | python3 -c "
        '"import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"'))
        for host in site.database_hosts
    ]  # fmt: skip
    assert shown[0] == shown[1]
    return dict(shown[0])


def _workers(site: Site) -> dict[str, str]:
    """Return the first process of HAProxy that serves on each host: another one after a reload."""
    script = "pgrep -P $(systemctl show -P MainPID haproxy) | sort -n | tail -n 1"
    return {host: _sh(site, host, script).strip() for host in site.database_hosts}


def _holder(site: Site) -> str | None:
    holders = [host for host, said in site.status().get("way", {}).items() if said.get("holds_vip")]
    return holders[0] if len(holders) == 1 else None


def _is_in_force(site: Site, values: dict[str, int]) -> None:
    """Demand that these values are what runs, on every host; keys as in the site file."""
    live = _live(site)
    for name in ("ttl", "loop_wait", "retry_timeout", "primary_start_timeout"):
        assert live[name] == values[f"patroni.{name}"], name
    assert live["maximum_lag_on_failover"] == values["patroni.maximum_lag_on_failover_mb"] * MIB
    assert live["synchronous_mode"] is True
    check = {key.rpartition(".")[2]: value for key, value in values.items() if key.startswith("proxy.check.")}
    for host in site.database_hosts:
        proxy = _sh(site, host, f"cat {HAPROXY}")
        assert (
            f"inter {check['interval_ms']}ms fastinter {check['fast_ms']}ms downinter {check['down_ms']}ms "
            f"fall {check['fall']} rise {check['rise']} "
        ) in proxy
        assert f"timeout check {check['timeout_ms']}ms\n" in proxy
        # What runs was started after the file was written.
        _sh(site, host, f'test "$(stat -c %Y /proc/$(pgrep -P $(systemctl show -P MainPID haproxy) | sort -n | '
            f'tail -n 1))" -ge "$(stat -c %Y {HAPROXY})"')  # fmt: skip
        assert f"advert_int {values['virtual_address.advert_ms'] / 1000:g}\n" in _sh(site, host, f"cat {KEEPALIVED}")


def _agrees(site: Site) -> None:
    """Demand that neither the engine nor the hosts see a difference."""
    assert site.keadb("preview", "--stack", site.name, "--expect-no-changes", check=False).returncode == 0
    drift = site.keadb("drift", "--stack", site.name, "--json", check=False)
    assert drift.returncode == 0, drift.stdout


def test_a_set_comes_and_goes_and_nothing_is_left_of_it(settled: Site) -> None:
    """In force it is what the site file says; afterwards it is as if it had never been. No role, no address moves."""
    site, stack = settled, resolve(settled.name)
    put_back(stack)
    before, holder, leader = site.site_file.read_bytes(), wait_for("a holder", partial(_holder, site)), site.leader()
    files = {
        (host, path): _sh(site, host, f"cat {path}") for host in site.database_hosts for path in (HAPROXY, KEEPALIVED)
    }
    _is_in_force(site, dict(SETS["keadb"].values))
    old, began = _workers(site), time.monotonic()
    with in_force(stack, "pigsty"):
        MEASURED.append(f"parameters: pigsty in force after {time.monotonic() - began:.1f} s")
        _is_in_force(site, dict(SETS["pigsty"].values))
        assert not set(_workers(site).items()) & set(old.items()), "every proxy took it over"
        _agrees(site)
        assert site.site_file.read_bytes() != before
    assert site.site_file.read_bytes() == before
    _is_in_force(site, dict(SETS["keadb"].values))
    assert files == {place: _sh(site, place[0], f"cat {place[1]}") for place in files}
    _agrees(site)
    assert (_holder(site), site.leader()) == (holder, leader)
    site.require_health()


def test_what_a_killed_drill_left_is_ended_by_the_next(settled: Site) -> None:
    """Nothing but a file remembers it: another process puts back what was."""
    site, stack = settled, resolve(settled.name)
    before = site.site_file.read_bytes()
    bring(stack, "autobase")
    _is_in_force(site, dict(SETS["autobase"].values))
    assert put_back(resolve(site.name))
    assert site.site_file.read_bytes() == before
    _is_in_force(site, dict(SETS["keadb"].values))
    _agrees(site)
