"""The very first command on a host: looks whether it is the one that the site file means, then installs the applier.

It runs as the deploy user, in a shell of whatever kind, on a machine that may have no interpreter yet. Nothing is
changed before its operating system is known to be the declared one. It never asks for a password and mends nothing
but a missing python3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keadb.bundle import APPLIER

if TYPE_CHECKING:
    from keadb.platforms import Platform

# An installed applier replaces itself; a new host has none yet and may do more than the base system leaves it.
# The installer is part of what arrives on stdin, so that its text stands in the preview too. An interpreter whose
# installation was cut is there and cannot import what it needs: that counts as none.
_INSTALL = (
    'import json, sys; request = json.load(sys.stdin); scope = {"__name__": "keadb_install"}; '
    'exec(request["modules"]["hostkit/install.py"], scope); sys.exit(scope["main"](request))'
)
_DOCS = "docs/real-site.md"


def bootstrap_command(platform: Platform) -> str:
    """Return the shell text; the applier's sources come on its stdin.

    It ends with 1 and one line on stderr on another operating system than the platform's, without sudo, and
    without an interpreter that could be installed.
    """
    distribution, version = platform.os_release
    return f"""\
host=$(uname -n)
stop() {{
    echo "keadb: $*" >&2
    exit 1
}}
python_works() {{
    python3 -I -c "import fcntl, json, subprocess, zipfile" </dev/null >/dev/null 2>&1
}}
found=$({{ . /etc/os-release && echo "${{ID:-}} ${{VERSION_ID:-}}"; }} 2>/dev/null)
[ "$found" = "{distribution} {version}" ] ||
    stop "$host runs ${{found:-a system without /etc/os-release}}, but the site file says" \\
        "platform {platform.name}: nothing was changed"
if sudo -n -l {APPLIER} bootstrap >/dev/null 2>&1 && [ -x {APPLIER} ] && python_works; then
    exec sudo -n {APPLIER} bootstrap
fi
if ! sudo -n true 2>/dev/null; then
    sudo -n -l {APPLIER} bootstrap >/dev/null 2>&1 || [ ! -e {APPLIER} ] ||
        stop "user $(id -un) may not run the applier with sudo any more on $host: its rule is gone, see {_DOCS}"
    [ -e {APPLIER} ] ||
        stop "user $(id -un) may not use sudo without a password on $host: see {_DOCS}"
    stop "python3 is missing or broken on $host, and user $(id -un) may run nothing but the applier there:" \\
        "mend it as root (apt-get install --reinstall python3 python3-minimal), then run this again"
fi
if ! python_works; then
    sudo -n sh -c 'export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
        apt="apt-get -q --yes --no-install-recommends -o DPkg::Lock::Timeout=240"
        cut=$(dpkg --audit)
        [ -z "$cut" ] || dpkg --force-confdef --force-confold --configure --pending
        $apt update && {{ [ -z "$cut" ] || $apt --fix-broken install; }} && $apt install python3' </dev/null >&2 ||
        stop "python3 could not be installed on $host: apt-get's message is above"
    python_works ||
        stop "python3 is installed on $host and does not work: mend it as root" \\
            "(apt-get install --reinstall python3 python3-minimal), then run this again"
fi
exec sudo -n python3 -c '{_INSTALL}'
"""
