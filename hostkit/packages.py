"""Debian packages: what is missing is installed, then held. Nothing is removed or upgraded unasked.

``NAME=VERSION`` asks for exactly this version, newer or older than the installed one. What runs meanwhile goes on
running: the base system's policy keeps maintainer scripts from restarting a member of the cluster, and its restart is
a matter of its own (``hostkit.software``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostkit.errors import HostError, during

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostkit import bundle
    from hostkit.context import Context

APT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    # needrestart would restart clustered services out of order.
    "NEEDRESTART_SUSPEND": "1",
}
_APT = (
    "apt-get",
    "--yes",
    "--quiet=2",
    "--no-install-recommends",
    "--no-remove",
    "--allow-change-held-packages",  # a held package moves when the bundle names another version of it
    "--allow-downgrades",  # only a version that was asked for can be an older one
    "-o",
    "DPkg::Lock::Timeout=240",  # the host's own apt timers may be at work
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
)
_UPDATE_LIMIT = 300
_INSTALL_LIMIT = 900
_QUERY_LIMIT = 60


def known(ctx: Context, names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return (wanted, status, version) as dpkg has it of each of these packages that dpkg has heard of."""
    wanted = sorted({name.partition("=")[0] for name in names})
    if not wanted:
        return {}
    form = "${Package}\t${db:Status-Want}\t${db:Status-Status}\t${Version}\n"
    # Exit code 1 only says that some are not known.
    query = ["dpkg-query", "--show", f"--showformat={form}", "--", *wanted]
    done = ctx.system.run(query, timeout=_QUERY_LIMIT, check=False)
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {row[0]: (row[1], row[2], row[3]) for row in rows if len(row) == 4}  # noqa: PLR2004 - the four asked for


def missing(ctx: Context, names: Iterable[str]) -> list[str]:
    """Return which of these (``name`` or ``name=version``) are not fully installed, or in another version."""
    names = list(names)
    have = known(ctx, names)

    def there(name: str) -> bool:
        package, _, version = name.partition("=")
        _, status, installed = have.get(package, ("", "", ""))
        return status == "installed" and version in {"", installed}

    return [name for name in names if not there(name)]


def converge(ctx: Context, packages: bundle.Packages) -> list[str]:
    """Install what is missing and hold what should be held; return what was changed, for the summary.

    The masks must be in force already (``units.mask``). An installation that was cut is finished first.
    """
    changed = []
    absent = missing(ctx, packages.install)
    if absent:
        ctx.say(f"installing {', '.join(_steps(ctx, absent))}")
        with during(f"installing {', '.join(absent)}"):
            cut = bool(ctx.system.run(["dpkg", "--audit"], timeout=_QUERY_LIMIT).stdout.strip())
            if cut:
                # Not checked: it fails for what was unpacked before what it depends on, and apt mends that.
                ctx.system.run(
                    ["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"],
                    timeout=_INSTALL_LIMIT,
                    check=False,
                    env=APT_ENVIRONMENT,
                )
            ctx.system.run([*_APT, "update"], timeout=_UPDATE_LIMIT, env=APT_ENVIRONMENT)
            if cut:
                # By itself: together with names to install apt refuses to mend anything else.
                ctx.system.run([*_APT, "--fix-broken", "install"], timeout=_INSTALL_LIMIT, env=APT_ENVIRONMENT)
            _require_versions(ctx, absent)
            ctx.system.run([*_APT, "install", *absent], timeout=_INSTALL_LIMIT, env=APT_ENVIRONMENT)
        changed += absent
    have = known(ctx, packages.hold)
    loose = [name for name in packages.hold if have.get(name, ("", "", ""))[0] != "hold"]
    if loose:
        with during(f"holding {', '.join(loose)}"):
            ctx.system.run(["apt-mark", "hold", *loose], timeout=_QUERY_LIMIT)
        changed += [f"{name} (held)" for name in loose]
    return changed


def _steps(ctx: Context, names: Iterable[str]) -> list[str]:
    """Return the packages in words, with the version that is left and the one that is asked for."""
    names = list(names)
    have = _installed(ctx, names)

    def step(name: str) -> str:
        package, _, version = name.partition("=")
        return f"{package} {have[package]} => {version}" if version and package in have else name

    return [step(name) for name in names]


def _installed(ctx: Context, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of these packages that are wholly installed."""
    return {package: version for package, (_, status, version) in known(ctx, names).items() if status == "installed"}


def _require_versions(ctx: Context, names: Iterable[str]) -> None:
    """Raise HostError, with nothing installed, for versions that this host's package sources do not have."""
    wanted = dict(name.split("=", 1) for name in names if "=" in name)
    if not wanted:
        return
    # Lines such as " patroni | 4.0.7-3 | http://... Packages"; one that is not known gives none.
    listed = ctx.system.run(["apt-cache", "madison", *wanted], timeout=_QUERY_LIMIT, check=False).stdout
    rows = [[part.strip() for part in line.split("|")] for line in listed.splitlines()]
    offered: dict[str, list[str]] = {name: [] for name in wanted}
    for row in rows:
        if len(row) == 3 and not row[2].endswith(" Sources") and row[1] not in offered.get(row[0], [row[1]]):  # noqa: PLR2004 - the three of a line
            offered[row[0]].append(row[1])
    have = _installed(ctx, wanted)
    problems = [
        f"{name}: wanted is version {version}, the package sources have {', '.join(offered[name]) or 'none'}"
        f" (installed: {have.get(name, 'none')})"
        for name, version in wanted.items()
        if version not in offered[name]
    ]
    if problems:
        msg = f"nothing was installed: {'; '.join(problems)}"
        raise HostError(msg)
