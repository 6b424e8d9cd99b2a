"""What a site file says that depends on the day, or is still an example's value. The caller decides what today is.

``broken_rules`` is right or wrong for good; these are asked before hosts are touched, and by ``keadb validate``.
"""

from __future__ import annotations

from datetime import date

from keadb.problems import Problem, show
from keadb.site_model import Site
from keadb.site_rules import LEAF_DAYS

RENEW_DAYS = 60
_EXAMPLE_SHA256 = "0" * 64


def not_usable(site: Site, today: date) -> tuple[Problem, ...]:
    """Return what must keep ``up`` from starting: expired acceptances, certificates of the future."""
    return (*expired_acceptances(site, today), *not_yet_valid(site, today))


def expired_acceptances(site: Site, today: date) -> tuple[Problem, ...]:
    """Return the acceptances whose last day has passed on ``today``."""
    return tuple(
        Problem(
            path=f"accept.{name}.until",
            given=show(str(entry.until)),
            allowed=f"{today} or later",
            message="has expired",
        )
        for name, entry in site.accept.items()
        if entry.until < today
    )


def not_yet_valid(site: Site, today: date) -> tuple[Problem, ...]:
    """Return the epochs of which every certificate would still be refused on ``today``."""
    return tuple(
        Problem(
            path=f"tls.{key}",
            given=show(str(day)),
            allowed=f"{today} or earlier",
            message="makes certificates that are not valid yet",
        )
        for key, day in (("ca_epoch", site.tls.ca_epoch), ("epoch", site.tls.epoch))
        if day > today
    )


def renewal_due(site: Site, today: date) -> tuple[Problem, ...]:
    """Return the epoch whose certificates have fewer than ``RENEW_DAYS`` days left on ``today``."""
    end = site.tls.epoch.toordinal() + LEAF_DAYS
    if today.toordinal() <= end - RENEW_DAYS:
        return ()
    return (
        Problem(
            path="tls.epoch",
            given=show(str(site.tls.epoch)),
            allowed=f"{date.fromordinal(today.toordinal() - LEAF_DAYS + RENEW_DAYS)} or later",
            message=f"makes certificates that end on {date.fromordinal(end)}: less than {RENEW_DAYS} days are left",
        ),
    )


def example_values(site: Site) -> tuple[Problem, ...]:
    """Return the values of the repository's example that no host can work with."""
    archive = site.etcd.archive
    if archive is None or archive.sha256 != _EXAMPLE_SHA256:
        return ()
    return (
        Problem(
            path="etcd.archive.sha256",
            given=show(archive.sha256),
            allowed="the SHA-256 of the archive that hosts can reach",
            message="is the example's value",
        ),
    )
