"""The base system of every host: names, kernel settings, time, and a deploy user that may only run the applier.

Also what keeps the machine's own habits away from the cluster: logs that cannot fill the disk, unattended upgrades
that leave the cluster's packages alone and never reboot, and no restart of a member by needrestart or by a package.

It does not manage users, disks or the network; the firewall is a component of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keadb.bundle import APPLIER, Bundle, File, Packages, Step, Unit
from keadb.deploy_rights import applier_words
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from keadb.site import Host, Site

SYSCTL_SCRIPT = "/usr/lib/keadb/sysctl"
SUDOERS = "/etc/sudoers.d/keadb"
SSHD = "/etc/ssh/sshd_config.d/60-keadb.conf"
SSHD_SCRIPT = "/usr/lib/keadb/ssh-rules"
SSHD_READ = "/var/lib/keadb/ssh-rules.sha256"
"""Which rules the SSH server was made to read last; a start reads them in any case."""
CHRONY_SOURCES = "/etc/chrony/sources.d/keadb.sources"
BOOTSTRAP_SUDOERS = "/etc/sudoers.d/keadb-bootstrap"
JOURNALD = "/etc/systemd/journald.conf.d/60-keadb.conf"
UNATTENDED = "/etc/apt/apt.conf.d/60keadb"
"""Read after the distribution's 50unattended-upgrades; neither package has to be there for its file."""
NEEDRESTART = "/etc/needrestart/conf.d/60-keadb.conf"
POLICY = "/usr/sbin/policy-rc.d"
"""Asked by every package that starts or restarts a service; no package owns it."""
CLUSTERED = ("etcd", "patroni", "postgresql", "kea_admin", "pooler", "proxy", "virtual_address")
"""Services (keys of ``Platform.packages``) whose packages only a change of the site upgrades."""
_JOURNAL_SHARE = 20
_JOURNAL_LIMITS_MB = (64, 1024)


def base_bundle(site: Site, host: Host) -> Bundle:
    """Return the base bundle of one host."""
    context = {"site": site, "host": host}
    packages = platform(site.platform, postgresql=site.postgresql.version).packages
    clustered = sorted({name for service in CLUSTERED for name in packages[service]})
    smallest, largest = _JOURNAL_LIMITS_MB
    journal_mb = min(largest, max(smallest, host.disk_gb * 1024 // _JOURNAL_SHARE))
    return Bundle(
        name="base",
        host=host.name,
        packages=Packages(install=packages["base"] + (packages["time"] if site.time_sync else ())),
        files={
            "/etc/keadb/host": File(content=host.name + "\n"),
            "/etc/hosts": File(content=render("base/hosts.j2", **context)),
            SUDOERS: File(
                content=render(
                    "base/sudoers.j2", **context, applier=APPLIER, applier_words=applier_words(site, host)
                ),
                mode="0440",
            ),
            SSHD: File(content=render("base/sshd.conf.j2", **context)),
            SSHD_SCRIPT: File(content=render("base/sshd.sh.j2", file=SSHD, stamp=SSHD_READ), mode="0755"),
            "/etc/sysctl.d/60-keadb.conf": File(content=render("base/sysctl.conf.j2", **context)),
            SYSCTL_SCRIPT: File(content=render("base/sysctl.sh.j2", **context), mode="0755"),
            JOURNALD: File(content=render("base/journald.conf.j2", journal_mb=journal_mb)),
            UNATTENDED: File(content=render("base/apt.conf.j2", clustered_packages=clustered)),
            NEEDRESTART: File(content=render("base/needrestart.conf.j2")),
            POLICY: File(content=render("base/policy-rc.d.j2"), mode="0755"),
            **({CHRONY_SOURCES: File(content=render("base/chrony.sources.j2", **context))} if site.time_sync else {}),
        },
        units={
            # Services keep their connection to it: systemd holds on to them while it restarts.
            "systemd-journald.service": Unit(restart_on=(JOURNALD,)),
            **({"chrony.service": Unit(restart_on=(CHRONY_SOURCES,))} if site.time_sync else {}),
        },
        steps=(
            Step(name="kernel settings", run=(SYSCTL_SCRIPT,), check=(SYSCTL_SCRIPT, "--check")),
            # From here on the deploy user may run the applier and nothing else; a broken rule would lock
            # keadb out, so the wide rule of the first run only goes when the narrow one parses.
            Step(
                name="narrow sudo",
                check=("test", "!", "-e", BOOTSTRAP_SUDOERS),
                run=("sh", "-c", f"visudo -cqf {SUDOERS} && rm -f {BOOTSTRAP_SUDOERS}"),
            ),
            Step(name="SSH rules of the deploy user", run=(SSHD_SCRIPT,), check=(SSHD_SCRIPT, "--check")),
        ),
    )
