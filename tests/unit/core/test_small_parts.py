"""Templating, naming, platforms, versions, memory and the host side's sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from keadb import naming, platforms, versions
from keadb.hostkit_source import modules
from keadb.memory import settings, smallest
from keadb.site import Postgresql, load_site
from keadb.templating import TemplateError, render, render_from
from tests.unit.core.samples import ha, put, site


def _template(root: Path, text: str, name: str = "etcd/etcd.yml.j2") -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return name


def test_templates_render_plain_text(tmp_path: Path) -> None:
    """Nothing is escaped for HTML, blocks leave no blank lines, the text ends in one newline."""
    name = _template(tmp_path, "{% for x in xs %}\n  {% if x %}\nv: {{ x }}\n  {% endif %}\n{% endfor %}\n\n\n")
    assert render_from(tmp_path, name, {"xs": ["<a&'>", "", "b"]}) == "v: <a&'>\nv: b\n"
    assert render_from(tmp_path, name, {"xs": []}) == ""


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("{{ v | json }}", {"b": 'ü"', "a": True}, '{"a": true, "b": "ü\\""}\n'),
        ("{{ v | pg }}", "it's \\", "'it''s \\\\'\n"),
        ("{{ v | pg }}", True, "on\n"),
        ("{{ v | pg }}", 4, "4\n"),
        ("{{ v | sh }}", "a b;c", "'a b;c'\n"),
    ],
)
def test_quoting_filters(tmp_path: Path, text: str, value: object, expected: str) -> None:
    """Values are quoted for the format they land in."""
    assert render_from(tmp_path, _template(tmp_path, text), {"v": value}) == expected


def test_template_errors_name_the_template(tmp_path: Path) -> None:
    """An undefined name, a syntax error, a missing template or include: the message says where."""
    _template(tmp_path, "{{ naem }}", "a.j2")
    with pytest.raises(TemplateError, match=r"templates/a\.j2: 'naem' is undefined \(given: name\)"):
        render_from(tmp_path, "a.j2", {"name": 1})
    _template(tmp_path, "\n{% if %}", "b.j2")
    with pytest.raises(TemplateError, match=r"templates/b\.j2, line 2: "):
        render_from(tmp_path, "b.j2", {})
    _template(tmp_path, "{% include 'd.j2' %}", "c.j2")
    with pytest.raises(TemplateError, match=r"templates/c\.j2: there is no template d\.j2"):
        render_from(tmp_path, "c.j2", {})
    with pytest.raises(TemplateError, match=r"templates/none/x\.j2: there is no template none/x\.j2"):
        render("none/x.j2")


def test_resource_names() -> None:
    """One scheme; a word that would make two names collide or move is refused."""
    assert naming.resource("us1-kea-db-01", "etcd") == "us1-kea-db-01-etcd"
    assert naming.resource("us1", "patroni", "converge") == "us1-patroni-converge"
    assert naming.type_token("components", "EtcdCluster") == "keadb:components:EtcdCluster"
    for bad in ("", "Etcd", "a b", "-a", "etcd-", "10.0.0.1"):
        with pytest.raises(ValueError, match="only lower-case letters"):
            naming.resource("us1", bad)
    with pytest.raises(ValueError, match="class name"):
        naming.type_token("components", "etcd")


def test_platforms() -> None:
    """Names of packages and paths follow the chosen PostgreSQL; the platform nobody ran says so."""
    debian = platforms.platform("debian-13")
    assert debian.packages["postgresql"] == ("postgresql-15", "postgresql-client-15")
    assert debian.packages["etcd"] == ("etcd-client", "etcd-server")
    assert debian.pg_bindir == "/usr/lib/postgresql/15/bin"
    for program, packages in debian.pins.items():
        assert set(packages) <= set(debian.packages[program]), program
    assert debian.ran
    ubuntu = platforms.platform("ubuntu-24.04", postgresql=17)
    assert ubuntu.pg_bindir == "/usr/lib/postgresql/17/bin"
    assert ubuntu.packages["postgresql_client"] == ("postgresql-client-17",)
    assert ubuntu.packages["etcd"] == ()
    assert ubuntu.etcd_from_archive
    assert not ubuntu.ran
    assert ubuntu.note.startswith("not run")
    for name in versions.PLATFORMS:
        made = platforms.platform(name)
        services = {"base", "time", "etcd", "patroni", "postgresql", "postgresql_client", "kea_admin"}
        services |= {"firewall", "pooler", "proxy", "virtual_address"}
        assert set(made.packages) == services
        assert set(made.kea_versions) <= set(versions.KEA_VERSIONS) == set(versions.KEA_SCHEMA)
    with pytest.raises(KeyError, match=r"debian-12.*known: debian-13, ubuntu-24\.04"):
        platforms.platform("debian-12")


@pytest.mark.parametrize(
    ("service", "version", "low"),
    [
        ("patroni", "4.0.7-1~deb13", False),
        ("patroni", "3.3.2-1", True),
        ("etcd", "3.5.16+dfsg-1", False),
        ("etcd", "3.4.30", True),
        ("postgresql", "1:15.18-1", False),
        ("pgbouncer", "1.21.0", True),
        ("pgbouncer", "1.22", False),
    ],
)
def test_floors(service: str, version: str, low: bool) -> None:  # noqa: FBT001 - a column of the table
    """Versions as packages write them are compared by their numbers; the reason is said."""
    said = versions.below_floor(service, version)
    assert (said is not None) is low
    if said:
        assert versions.FLOORS[service].reason in said


def test_etcd_and_patroni_belong_together() -> None:
    """From etcd 3.5.28 on an older Patroni cannot list members: the cluster would lose its leader."""
    assert versions.etcd_patroni_mismatch("3.5.16", "4.0.7") is None
    assert versions.etcd_patroni_mismatch("3.5.28", "4.1.1") is None
    assert "needs Patroni 4.1.1" in str(versions.etcd_patroni_mismatch("3.5.28", "4.0.7"))
    with pytest.raises(ValueError, match="does not start with a number"):
        versions.parse("unknown")


@pytest.mark.parametrize(
    ("memory", "cores", "connections", "expected"),
    [
        (512, 1, 100, ("128MB", "384MB", "64MB", "4MB", "1", "0")),
        (2048, 2, 100, ("512MB", "1536MB", "128MB", "7MB", "2", "1")),
        (8192, 4, 100, ("2048MB", "6144MB", "512MB", "28MB", "4", "2")),
        (8192, 4, 500, ("2048MB", "6144MB", "512MB", "5MB", "4", "2")),
        (65_536, 32, 100, ("16384MB", "49152MB", "1024MB", "64MB", "8", "4")),
    ],
)
def test_memory(memory: int, cores: int, connections: int, expected: tuple[str, ...]) -> None:
    """Sizes follow the site file; nothing is so large that every connection at once would exhaust the host."""
    made = settings(memory, cores, Postgresql(max_connections=connections))
    keys = (
        "shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem", "max_parallel_workers",
        "max_parallel_workers_per_gather",
    )  # fmt: skip
    assert tuple(made[key] for key in keys) == expected
    assert list(made) == sorted(made)


def test_shared_buffers_from_the_site_file() -> None:
    """A given size wins; work_mem shrinks with it."""
    made = settings(8192, 4, Postgresql(shared_buffers_mb=3072))
    assert (made["shared_buffers"], made["work_mem"]) == ("3072MB", "23MB")


def test_shared_settings_fit_the_smallest_host() -> None:
    """A standby with less memory must be able to run what the cluster-wide settings ask for."""
    made = load_site(
        put(put(ha(), "hosts/lab-kea-db-02/memory_mb", 4096), "hosts/lab-kea-db-01/cores", 2), source="x"
    )
    assert smallest(made.database_hosts) == (4096, 2)
    assert smallest(site().database_hosts) == (8192, 4)


def test_sources_of_the_host_side(tmp_path: Path) -> None:
    """Every module, sorted, whatever else lies in the folder and however the checkout ends its lines."""
    for path, content in {
        "__main__.py": b"x = 1\r\n",
        "__init__.py": b"",
        "sub/b.py": b"y\n",
        "__pycache__/c.py": b"no",
        "notes.txt": b"no",
    }.items():
        target = tmp_path / "hostkit" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    made = modules(tmp_path)
    expected = {"hostkit/__init__.py": "", "hostkit/__main__.py": "x = 1\n", "hostkit/sub/b.py": "y\n"}
    assert made == expected
    assert list(made) == sorted(expected)
    with pytest.raises(FileNotFoundError, match=r"there is no hostkit/__main__\.py"):
        modules(tmp_path / "elsewhere")
