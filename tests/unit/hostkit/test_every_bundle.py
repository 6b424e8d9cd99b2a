"""Every bundle that the program would send is one that the applier reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import catalog
from hostkit import __main__ as command
from hostkit import bundle, install
from keadb.stackfile import read_stack

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda p: p.name)
def test_the_applier_reads_every_bundle_of_every_stack(path: Path) -> None:
    """And knows every verb of its own that a bundle's steps and probes call."""
    site = read_stack(path.read_text(), stack=path.stem.removeprefix("Pulumi."), source=path.name)
    for host, sent in catalog.bundles(site).items():
        for one in sent:
            read = bundle.parse(one.to_json())
            assert (read.name, read.host, read.secrets) == (one.name, host, one.secrets)
            for argv in [s.run for s in read.steps] + [p.run for p in read.probes]:
                if argv[0] == f"/{install.TARGET}":
                    command.verb(argv[1])
