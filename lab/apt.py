"""Where this machine gets Debian packages from, read from its own apt configuration.

No host name of an archive stands in this repository: a machine behind a mirror builds its lab from that
mirror, with the mirror's proxy and date settings.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Keys of every living Debian release, the next one's included (package debian-archive-keyring)."""

_FIELDS = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_OPTION = re.compile(r'^(Acquire::(?:https?(?:::[^ ]+)?|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])) "(.+)";$')


@dataclass(frozen=True)
class Target:
    """One line of ``apt-get indextargets``: an archive's URI, suite and component."""

    uri: str
    suite: str
    component: str


@dataclass(frozen=True)
class Archive:
    """URIs of Debian's main archive and, where the machine has one, of its security archive."""

    main: str
    security: str | None

    def lines(self, suites: tuple[str, ...], keyring: Path = KEYRING) -> list[str]:
        """Return apt source lines for the suites, in order, each followed by its security suite."""
        option = f"[signed-by={keyring}]"
        result = []
        for suite in suites:
            result.append(f"deb {option} {self.main} {suite} main")
            if self.security:
                result.append(f"deb {option} {self.security} {suite}-security main")
        return result


def parse_targets(text: str) -> list[Target]:
    """Read lines of the form ``uri|suite|component``."""
    return [Target(*line.split("|")) for line in text.splitlines() if line.count("|") == 2]  # noqa: PLR2004 -- three fields


def parse_options(dump: str) -> list[str]:
    """Pick from ``apt-config dump`` what a build needs too: proxies, date checks, retries."""
    return [f'{match[1]} "{match[2]}"' for line in dump.splitlines() if (match := _OPTION.match(line))]


def choose(targets: list[Target], codename: str) -> Archive:
    """Choose the archive that serves this machine's own release.

    Raises LabError when apt has no source for that release (a machine that isn't Debian, for one).
    """
    security = next((t.uri for t in targets if t.suite == f"{codename}-security" and t.component == "main"), None)
    main = next((t.uri for t in targets if t.suite == codename and t.component == "main"), None)
    if main is None:
        found = ", ".join(sorted({f"{t.suite}/{t.component}" for t in targets})) or "nothing"
        message = (
            f"apt on this machine has no source for Debian {codename!r} main (found: {found}); the lab's image "
            "is built from the machine's own Debian archive"
        )
        raise LabError(message)
    return Archive(main=main, security=security)


def codename(os_release: str) -> str:
    """Read VERSION_CODENAME; refuse a machine that isn't Debian."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    values = {key: value.strip('"') for key, value in values.items()}
    if values.get("ID") != "debian":
        message = f"the lab's image needs a Debian machine's apt sources; this is {values.get('ID', 'unknown')!r}"
        raise LabError(message)
    return values["VERSION_CODENAME"]


def machine_archive() -> Archive:
    """Return the archive that this machine's apt uses."""
    targets = subprocess.run(  # noqa: S603 -- fixed argument list
        ["/usr/bin/apt-get", "indextargets", "--format", _FIELDS, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    return choose(parse_targets(targets), codename(release))


def machine_options() -> list[str]:
    """Return this machine's apt options that a build needs too."""
    dump = subprocess.run(["/usr/bin/apt-config", "dump"], check=True, capture_output=True, text=True)
    return parse_options(dump.stdout)
