"""The base system of every host: names, kernel settings, time, and a deploy user that may only run the applier.

It does not manage users, disks, the network or the firewall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keadb.bundle import Bundle, File, Packages, Step, Unit
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from keadb.site import Host, Site

SYSCTL_SCRIPT = "/usr/lib/keadb/sysctl"
SUDOERS = "/etc/sudoers.d/keadb"
CHRONY_SOURCES = "/etc/chrony/sources.d/keadb.sources"
BOOTSTRAP_SUDOERS = "/etc/sudoers.d/keadb-bootstrap"


def base_bundle(site: Site, host: Host) -> Bundle:
    """Return the base bundle of one host."""
    context = {"site": site, "host": host}
    packages = platform(site.platform).packages
    return Bundle(
        name="base",
        host=host.name,
        packages=Packages(install=packages["base"] + (packages["time"] if site.time_sync else ())),
        files={
            "/etc/keadb/host": File(content=host.name + "\n"),
            "/etc/hosts": File(content=render("base/hosts.j2", **context)),
            SUDOERS: File(content=render("base/sudoers.j2", **context), mode="0440"),
            "/etc/sysctl.d/60-keadb.conf": File(content=render("base/sysctl.conf.j2", **context)),
            SYSCTL_SCRIPT: File(content=render("base/sysctl.sh.j2", **context), mode="0755"),
            **({CHRONY_SOURCES: File(content=render("base/chrony.sources.j2", **context))} if site.time_sync else {}),
        },
        units={"chrony.service": Unit(restart_on=(CHRONY_SOURCES,))} if site.time_sync else {},
        steps=(
            Step(name="kernel settings", run=(SYSCTL_SCRIPT,), check=(SYSCTL_SCRIPT, "--check")),
            # From here on the deploy user may run the applier and nothing else; a broken rule would lock
            # keadb out, so the wide rule of the first run only goes when the narrow one parses.
            Step(
                name="narrow sudo",
                check=("test", "!", "-e", BOOTSTRAP_SUDOERS),
                run=("sh", "-c", f"visudo -cqf {SUDOERS} && rm -f {BOOTSTRAP_SUDOERS}"),
            ),
        ),
    )
