"""Site files as the commands need them: read, validated as a whole, checked for missing secrets. No engine."""

from __future__ import annotations

from datetime import date
from typing import Any

from keadb import site_dates
from keadb.site import Site, SiteError
from keadb.stackfile import missing_secrets, parse, site_of
from ops.exits import CommandError
from ops.stacks import Stack


def load(stack: Stack) -> Site:
    """Return the stack's site; raise CommandError with every problem of the file."""
    try:
        return site_of(_parsed(stack), stack=stack.name, source=stack.site_file.name)
    except SiteError as error:
        raise CommandError(str(error)) from error


def problems(stack: Stack, *, today: date) -> list[tuple[str, str, str, str]]:
    """Return everything that is wrong with a stack file: key, what is wrong, given, allowed.

    ``today`` decides about acceptances that expired and certificates that end. No secret is needed.
    """
    try:
        site = site_of(_parsed(stack), stack=stack.name, source=stack.site_file.name)
    except SiteError as error:
        found = error.problems
    else:
        found = [*site_dates.not_usable(site, today), *site_dates.renewal_due(site, today)]
    return [(p.path or "(the whole)", p.message, p.given, p.allowed) for p in found]


def require_usable(stack: Stack, site: Site, *, today: date, touches_hosts: bool) -> list[str]:
    """Raise CommandError for what must keep the engine from starting; return warnings.

    ``touches_hosts`` also refuses values of the repository's examples: a preview of them is fine.
    """
    found = [*site_dates.not_usable(site, today), *(site_dates.example_values(site) if touches_hosts else ())]
    if found:
        raise CommandError(str(SiteError(found, source=stack.site_file.name)))
    return [str(problem) for problem in site_dates.renewal_due(site, today)]


def require_secrets(stack: Stack) -> None:
    """Raise CommandError that names the secrets which were not made yet, and how to make them."""
    if missing := missing_secrets(_parsed(stack)):
        msg = (
            f"stack {stack.name} has no value for {', '.join(f'keadb:secret_{name}' for name in missing)}: "
            f"run 'keadb secrets init --stack {stack.name}'"
        )
        raise CommandError(msg)


def _parsed(stack: Stack) -> Any:
    try:
        text = stack.site_file.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"stack {stack.name}: {stack.site_file} cannot be read: {error.strerror}"
        raise CommandError(msg) from error
    return parse(text, source=stack.site_file.name)
