"""The site: everything that makes one site differ from another, as plain validated data.

`load_site` is the only way in; it reports every problem of a file at once. Each key is explained in
docs/site-file.md. A site knows no secret, no clock and nothing derived from the machine that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from keadb.problems import Problem, SiteError, show
from keadb.site_draft import Draft
from keadb.site_errors import translate
from keadb.site_model import (
    Acceptance,
    Archive,
    Etcd,
    Host,
    Kea,
    Logins,
    Network,
    Packages,
    Patroni,
    Pooler,
    Postgresql,
    Proxy,
    Site,
    Tls,
)
from keadb.site_rules import broken_rules

__all__ = [
    "Acceptance",
    "Archive",
    "Etcd",
    "Host",
    "Kea",
    "Logins",
    "Network",
    "Packages",
    "Patroni",
    "Pooler",
    "Postgresql",
    "Problem",
    "Proxy",
    "Site",
    "SiteError",
    "Tls",
    "load_site",
]


def load_site(data: object, *, source: str) -> Site:
    """Return the site of ``data`` (what YAML or JSON gave). ``source`` names the file in the message.

    Raises SiteError with all problems; nothing else, whatever ``data`` holds. Does not look at the calendar: see
    ``keadb.site_dates``.
    """
    if not isinstance(data, Mapping):
        problem = Problem(path="", given=show(data), allowed="a mapping of keys", message="is not a site")
        raise SiteError([problem], source=source)
    try:
        site, problems = _read(data)
    except RecursionError:  # a YAML anchor can make a value that holds itself
        site, allowed = None, "values nested at most three levels deep"
        problems = [Problem(path="", given="a value nested too deep", allowed=allowed, message="cannot be read")]
    if problems or site is None:
        raise SiteError(problems, source=source)
    if site.topology == "single" and "synchronous_mode" not in site.patroni.model_fields_set:
        # One database host has nobody to wait for; the default turns with the topology.
        return site.model_copy(update={"patroni": site.patroni.model_copy(update={"synchronous_mode": False})})
    return site


def _read(data: Mapping[Any, Any]) -> tuple[Site | None, list[Problem]]:
    problems: list[Problem] = []
    site: Site | None = None
    try:
        site = Site.model_validate(dict(data))
    except ValidationError as error:
        problems += translate(error, Site)
    problems += broken_rules(Draft.of(data, site))
    return site, problems
