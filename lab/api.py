"""The lab for programs: what tests, drills and the command line use."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from lab import control, lifecycle, network, storage
from lab.errors import LabError
from lab.model import LabHost, lab_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Address

_CLEAN_ENVIRONMENT = (
    "HOME=/root",
    "USER=root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)


def silent(_line: str) -> None:
    """Say nothing."""


class Lab:
    """One lab by its name (default: ``$KEADB_LAB``, else ``lab``). Making one touches nothing."""

    def __init__(self, name: str | None = None) -> None:
        self.spec = lab_spec(name)

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """The lab's hosts, in the site file's order."""
        return self.spec.hosts

    def address(self, host: str) -> IPv4Address:
        """Return a host's address."""
        return self.spec.host(host).address

    def up(
        self,
        *,
        disk_mb: int = storage.DEFAULT_DISK_MB,
        with_secrets: bool = True,
        bare: Sequence[str] = (),
        topology: str = "ha",
        spare: bool = False,
        say: Callable[[str], None] = silent,
    ) -> None:
        """Bring it up; see ``lab.lifecycle.up``."""
        lifecycle.up(
            self.spec, say, disk_mb=disk_mb, with_secrets=with_secrets, bare=bare, topology=topology, spare=spare
        )

    def down(self, *, keep_disks: bool = False, say: Callable[[str], None] = silent) -> None:
        """Take it down; see ``lab.lifecycle.down``."""
        lifecycle.down(self.spec, say, keep_disks=keep_disks)

    def status(self) -> dict[str, Any] | None:
        """Return each host's state, cable and first process; None when the lab isn't up."""
        return control.status(self.spec)

    def exec_argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` as root inside the host, in a clean environment.

        Raises LabError when the host is off.
        """
        target = self.spec.host(host)
        state = control.ask(self.spec, "status")[target.name]
        if state["init"] is None:
            message = f"{target.name} is powered off; keadb lab power-on {target.name}"
            raise LabError(message)
        return [
            *("nsenter", "--target", str(state["init"]), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"),
            *("--root", "--wd", "--", "env", "-i", *_CLEAN_ENVIRONMENT, *argv),
        ]

    def ns_argv(self, argv: Sequence[str], *, address: str | None = None) -> list[str]:
        """Return the command that runs ``argv`` inside the lab's network; LabError when it has none.

        It stands on the bridge, or with ``address`` on a machine of its own, that is there as long as the command.
        """
        if not self.spec.netns_path.exists():
            message = f"lab {self.spec.name} is not up; start it with: keadb lab up --name {self.spec.name}"
            raise LabError(message)
        if address is not None:
            return network.as_stranger(self.spec, self.spec.stranger(address), argv)
        return ["nsenter", f"--net={self.spec.netns_path}", "--", *argv]

    def exec(
        self, host: str, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside the host; its exit code is the caller's to judge."""
        return _run(self.exec_argv(host, argv), stdin, timeout)

    def ns(
        self, argv: Sequence[str], *, address: str | None = None, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine inside the lab's network (see ``ns_argv``); its exit code is the caller's."""
        return _run(self.ns_argv(argv, address=address), stdin, timeout)

    def power_off(self, host: str) -> bool:
        """Take the host's power; False when it was off."""
        return bool(control.ask(self.spec, "power-off", host=host)["stopped"])

    def power_on(self, host: str, *, wait: float = 60) -> bool:
        """Start the host and wait (seconds; 0: don't) for its SSH; False when it ran already.

        A host that is cut from the network or frozen is not waited for.
        """
        started = bool(control.ask(self.spec, "start", host=host)["started"])
        self._wait(host, wait)
        return started

    def freeze(self, host: str) -> bool:
        """Stop every process of the host where it stands; False when it was frozen already, LabError when off.

        Its connections stay open and silent, as with a machine whose hypervisor or storage hangs.
        """
        return bool(control.ask(self.spec, "freeze", host=host)["changed"])

    def thaw(self, host: str) -> bool:
        """Let a frozen host go on, unaware of the time that passed; False when it wasn't frozen."""
        return bool(control.ask(self.spec, "thaw", host=host)["changed"])

    def rebuild(
        self, host: str, *, same_key: bool = False, wait: float = 60, say: Callable[[str], None] = silent
    ) -> None:
        """Install the host anew, on an empty disk, and wait (seconds; 0: don't) for its SSH.

        See ``lab.lifecycle.rebuild`` for ``same_key`` and what is written to the site file.
        """
        lifecycle.rebuild(self.spec, self.spec.host(host), say, same_key=same_key)
        self._wait(host, wait)

    def readdress(self, host: str, address: str, *, wait: float = 60, say: Callable[[str], None] = silent) -> None:
        """Start the host with another address, and wait (seconds; 0: don't) for its SSH; see ``lab.lifecycle``."""
        lifecycle.readdress(self.spec, self.spec.host(host), address, say)
        self._wait(host, wait)

    def cut(self, host: str, packets: str | None = None) -> None:
        """Pull the host's network cable; or leave it in and lose ``packets``: ``all``, ``sent`` or ``received``.

        A lost packet is told to nobody: the host's link stays up, as behind a switch that went wrong.
        """
        control.ask(self.spec, "cut", host=host, packets=packets)

    def heal(self, host: str) -> None:
        """Plug the host's network cable in again, and lose no packets any more."""
        control.ask(self.spec, "heal", host=host)

    def fill_disk(self, host: str) -> None:
        """Leave no free space on the host's disk until ``free_disk``, whatever is deleted; LabError if it fails."""
        done = self.exec(host, ["sh", "-c", storage.FILL])
        if done.returncode != 0:
            message = f"{host}: its disk could not be filled: {done.stderr.strip()}"
            raise LabError(message)

    def free_disk(self, host: str) -> None:
        """Give back what ``fill_disk`` took; nothing to do is fine."""
        self.exec(host, ["sh", "-c", storage.FREE])

    def _wait(self, host: str, seconds: float) -> None:
        state = control.ask(self.spec, "status")[self.spec.host(host).name]
        if seconds > 0 and (state["state"], state["cable"]) == ("running", "plugged"):
            control.ask(self.spec, "wait-ssh", host=host, seconds=seconds)


def _run(argv: list[str], stdin: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- running given commands is what this is for
        argv, check=False, capture_output=True, text=True, input=stdin or "", timeout=timeout
    )
