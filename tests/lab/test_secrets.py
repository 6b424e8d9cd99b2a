"""None of the generated secrets is found where it must not be: the search is for the real values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.harness import Site

pytestmark = pytest.mark.lab


def _needles(site: Site) -> dict[str, str]:
    """Return what to search for: each password, and a line from the body of each key."""
    needles = {}
    for name, value in site.secrets().items():
        lines = [line for line in value.strip().splitlines() if not line.startswith("-----")]
        needles[name] = max(lines, key=len)
    assert all(len(needle) >= 20 for needle in needles.values())
    return needles


def _found(text: str, needles: dict[str, str]) -> list[str]:
    return [name for name, needle in needles.items() if needle in text]


def test_the_search_finds_what_is_there(settled: Site) -> None:
    """A search that cannot find anything would prove nothing: the root-only places do hold secrets."""
    needles = _needles(settled)
    store = settled.lab.exec(settled.database_hosts[0], ["cat", "/var/lib/keadb/secrets.json"]).stdout
    assert set(_found(store, needles)) == {
        *(settled.login(key)[1] for key in ("owner", "read", "etcd")),
        "patroni_rest_password",
    }


def test_not_in_the_engines_state_or_output(settled: Site, tmp_path: Path) -> None:
    """State holds ciphertext only; the first run, a preview and a rendered tree show nothing."""
    needles = _needles(settled)
    files = [p for p in (settled.state / "backend").rglob("*") if p.is_file()]
    assert any(p.stat().st_size > 10_000 for p in files)
    for path in [*files, settled.site_file]:
        assert _found(path.read_text(errors="replace"), needles) == [], path
    assert settled.first_up_output
    assert _found(settled.first_up_output, needles) == []
    for arguments in (["preview", "--diff"], ["preview", "--json"], ["status", "--json"], ["status"]):
        done = settled.keadb(*arguments, "--stack", settled.name)
        assert _found(done.stdout + done.stderr, needles) == [], arguments
    settled.keadb("render", "--stack", settled.name, "--out", str(tmp_path / "tree"))
    for path in (tmp_path / "tree").rglob("*"):
        if path.is_file():
            assert _found(path.read_text(), needles) == [], path


def test_not_in_process_lists_sampled_during_the_first_run(settled: Site) -> None:
    """Command lines of everything on the machine, hosts included, several times a second."""
    assert len(settled.command_lines) > 50
    assert any("keadb-apply" in line for line in settled.command_lines)
    assert _found("\n".join(settled.command_lines), _needles(settled)) == []


@pytest.mark.parametrize("place", ["files that others may read", "journal", "postgresql"])
def test_not_on_the_hosts(settled: Site, place: str) -> None:
    """Not in a file that others may read, in no unit's log, and nowhere in PostgreSQL's data or log."""
    script = {
        "files that others may read": (
            "find /etc /home /opt /root /run /srv /tmp /usr/lib/keadb /var -type f -perm -o+r -print0 2>/dev/null"
            " | xargs -0 grep -slF -f /dev/fd/3"
        ),
        "journal": "journalctl --no-pager -o verbose | grep -F -f /dev/fd/3",
        "postgresql": "grep -rslF -f /dev/fd/3 /var/lib/postgresql /var/log/postgresql",
    }[place]
    needles = "\n".join(_needles(settled).values()) + "\n"
    for host in settled.lab.hosts:
        done = settled.lab.exec(
            host.name, ["bash", "-c", f'exec 3<<<"$(cat)"; {script}; true'], stdin=needles, timeout=120
        )
        assert done.stdout.strip() == "", (host.name, place)
        assert done.returncode == 0, done.stderr


def test_keys_on_hosts_are_for_their_service_only(settled: Site) -> None:
    """Every private key is 0600, in a place of its own for its owner."""
    for host in settled.lab.hosts:
        listed = settled.lab.exec(
            host.name, ["find", "/etc", "/var/lib/keadb", "-name", "*.key", "-type", "f", "-printf", "%m %p\\n"]
        ).stdout.splitlines()
        ours = [line for line in listed if "/ssl/" not in line and "/ssh/" not in line]
        assert ours
        assert [line for line in ours if not line.startswith("600 ")] == []


def test_the_deploy_user_may_only_run_the_applier(settled: Site) -> None:
    """Passwordless sudo for the applier, and for nothing else."""
    for host in settled.lab.hosts:
        refused = settled.lab.exec(host.name, ["runuser", "-u", "keadb", "--", "sudo", "-n", "id"])
        assert refused.returncode != 0
        allowed = settled.lab.exec(
            host.name, ["runuser", "-u", "keadb", "--", "sudo", "-n", "/usr/lib/keadb/keadb-apply", "version"]
        )
        assert allowed.returncode == 0, allowed.stderr
