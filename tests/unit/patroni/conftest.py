"""A world of fakes for the cluster's steps, and the sample sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components import patroni_settings
from components import postgres_cluster as pg
from keadb.site import Site, load_site
from tests.unit.core.samples import ha
from tests.unit.etcd.etcd_authority import Authority
from tests.unit.patroni.patroni_fakes import DB1, DB2, World


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Return the site's CA."""
    return Authority()


@pytest.fixture
def site() -> Site:
    """Return the sample site of three hosts."""
    return load_site(ha(), source="test")


@pytest.fixture
def world(tmp_path: Path, authority: Authority, site: Site) -> Iterator[World]:
    """Return hosts with their plans; no Patroni runs yet, etcd is empty."""
    made = World(tmp_path, authority)
    made.place(pg.patroni_settings_bundle(site))
    for name in (DB1, DB2):
        made.place(pg.patroni_form_bundle(site, site.hosts[name], {}))
    yield made
    made.stop()


@pytest.fixture
def running(world: World, site: Site) -> World:
    """Return a world with a healthy cluster of the declared settings."""
    world.patroni.config = patroni_settings.dynamic_config(site)
    for name in (DB1, DB2):
        world.patroni.start(name)
    return world
