"""Changes under a writer and a reader, measured and judged as the campaign of all of them does (tests/campaign)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.campaign.change_list import CHANGES
from tests.campaign.measuring import Clients, measure
from tests.lab.harness import MEASURED, Site, Writer

if TYPE_CHECKING:
    from tests.campaign.change_list import Change
    from tests.campaign.measuring import Leg

pytestmark = pytest.mark.lab

REPEATED = ("pg-reload", "limit", "switchover", "logins", "file-gone", "wiped-standby")
"""Six of the campaign: reload, restarts in both orders, a hand-over, a login, a file that goes, a repair."""


@pytest.mark.parametrize("change", [c for c in CHANGES if c.name in REPEATED], ids=lambda c: c.name)
def test_a_change_does_what_it_declares_and_loses_nothing(
    settled: Site, writer: Writer, reader: Writer, change: Change
) -> None:
    """Restarts and leaderships as declared, no row lost, nothing pending, an empty preview, a healthy site."""
    result = measure(settled, change, Clients(writer=writer, reader=reader))
    assert result.wrong == []
    for which, leg in (("", result.there), (", back", result.back)):
        if leg is not None:
            MEASURED.append(f"{change.name}{which}: {_gaps(leg)}")


def _gaps(leg: Leg) -> str:
    return f"longest gaps {leg.write_gap:.1f} s (writes), {leg.read_gap:.1f} s (reads), 0 of {leg.writes} rows lost"


def test_the_leaders_copy_is_never_deleted(settled: Site) -> None:
    """``reinit`` of the leader is refused by name."""
    leader = settled.leader()
    assert leader
    refused = settled.keadb("reinit", leader, "--stack", settled.name, "--yes", check=False)
    assert refused.returncode == 1
    assert f"{leader} leads: its data is what the others are copied from" in refused.stderr
