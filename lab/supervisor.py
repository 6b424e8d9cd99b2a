"""The one process a lab that owns mounts and containers: started by ``keadb lab up``, ended by ``down``.

It runs in the lab's network namespace, in a mount namespace of its own and in the lab's control group. When it and
its containers are gone, mounts and loop devices are gone. It takes one JSON request a connection on a socket in
the lab's folder: ``start``, ``power-off``, ``wipe``, ``readdress``, ``freeze``, ``thaw``, ``cut``, ``heal``,
``wait-ssh``, ``status``. Standard library only, so that it starts at once. A host that reboots comes back; one that
stopped stays off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import cgroup, container, control, images, network, process, storage
from lab.errors import LabError
from lab.model import LabHost, LabSpec
from lab.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BANNER = b"SSH-2.0-"
_INIT_DEADLINE = 10.0
_REBOOT = 133
"""Exit code of systemd-nspawn when the host asked for a reboot and the restart is its caller's."""


class Supervisor:
    """Keeps the containers of one lab. Methods are called from one thread a request."""

    def __init__(self, spec: LabSpec, chosen: Mapping[str, images.Image]) -> None:
        self.spec = spec
        self.images = chosen
        self.roots: dict[str, Path] = {}
        self.containers: dict[str, subprocess.Popen[bytes]] = {}
        self.inits: dict[str, process.Identity] = {}
        self.unplugged: set[str] = set()
        self.losses: dict[str, str] = {}
        self.lock = threading.Lock()
        self.host_locks = {host.name: threading.Lock() for host in spec.hosts}
        me = process.identify(_own_pid())
        if me is None:
            message = "/proc does not show this process"
            raise LabError(message)
        self.me = me

    def group(self, host: LabHost) -> str:
        """Return the host's control group."""
        return f"{self.spec.cgroup}/{host.machine}"

    def record(self) -> None:
        """Write down what runs, for those who clean up after us."""
        with self.lock:
            process.save(self.spec.record, {"supervisor": self.me, **self.inits})

    def start(self, host: LabHost) -> dict[str, Any]:
        """Start the host unless it runs; return once its first process is there."""
        with self.host_locks[host.name]:
            if self.running(host):
                return {"started": False}
            if host.name not in self.roots:
                root = storage.mount(self.spec, host, self.images[host.name].folder)
                container.seed(self.spec, host, root)
                self.roots[host.name] = root
            group = cgroup.create(self.group(host))
            # Reopened for each start: the console of the last one is what a failed boot leaves behind.
            with (self.spec.logs / f"{host.name}.console").open("wb") as console:
                child = subprocess.Popen(  # noqa: S603 -- argument list from lab.container
                    cgroup.inside(group, container.command(self.spec, host, self.roots[host.name])),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.containers[host.name] = child
            self.inits[host.name] = self._wait_init(host, child)
            self.record()
            if host.name in self.unplugged:
                network.set_cable(self.spec, host, plugged=False)
            threading.Thread(target=self._restart_after_reboot, args=(host, child), daemon=True).start()
            return {"started": True}

    def running(self, host: LabHost) -> bool:
        """Say whether the host's container runs; reaps a dead one."""
        child = self.containers.get(host.name)
        return child is not None and child.poll() is None

    def power_off(self, host: LabHost) -> dict[str, Any]:
        """SIGKILL the host's first process: all its processes go with it, nothing is written or said."""
        with self.host_locks[host.name]:
            if not self.running(host):
                return {"stopped": False}
            child = self.containers.pop(host.name)
            process.kill(self.inits.pop(host.name))
            # What was inside of a frozen host dies as it stands; systemd-nspawn must move to notice it.
            cgroup.freeze(self.group(host), frozen=False)
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            cgroup.kill(self.group(host))
            cgroup.remove(self.group(host))
            self.record()
            return {"stopped": True}

    def wipe(self, host: LabHost) -> dict[str, Any]:
        """Take the host's power and give it an empty disk of the same size; it stays off."""
        self.power_off(host)
        with self.host_locks[host.name]:
            if self.running(host):
                message = f"{host.name} was started while it was to be wiped; try again"
                raise LabError(message)
            if self.roots.pop(host.name, None) is not None:
                storage.unmount(self.spec, host)
            storage.renew(self.spec.disk(host))
            return {"wiped": True}

    def readdress(self, host: LabHost, address: str) -> dict[str, Any]:
        """Take the host's power and have it come back with another address; it stays off."""
        self.power_off(host)
        with self.host_locks[host.name]:
            if self.running(host) or host.name not in self.roots:
                message = f"{host.name} was started, or never was; try again"
                raise LabError(message)
            container.readdress(self.spec, self.spec.moved(host, address), self.roots[host.name])
            return {"moved": True}

    def freeze(self, host: LabHost, *, frozen: bool) -> dict[str, Any]:
        """Stop every process of the host where it stands, or let them go on; False when it was so already."""
        with self.host_locks[host.name]:
            if not self.running(host):
                message = f"{host.name} is powered off; keadb lab power-on {host.name}"
                raise LabError(message)
            if cgroup.is_frozen(self.group(host)) == frozen:
                return {"changed": False}
            cgroup.freeze(self.group(host), frozen=frozen)
            return {"changed": True}

    def cut(self, host: LabHost, packets: str | None) -> dict[str, Any]:
        """Pull the host's cable, or with its link up lose ``packets`` (a key of ``network.LOSSES``) on the way."""
        if packets is None:
            return self.cable(host, plugged=False)
        if packets not in network.LOSSES:
            message = f"packets {packets!r}: allowed are {', '.join(network.LOSSES)}"
            raise LabError(message)
        with self.host_locks[host.name]:
            network.set_loss(self.spec, host, packets)
            self.losses[host.name] = packets
            return {"packets": packets}

    def cable(self, host: LabHost, *, plugged: bool) -> dict[str, Any]:
        """Cut the host from the network, or heal it of any cut; one that is off comes back the same way."""
        with self.host_locks[host.name]:
            if plugged and self.losses.pop(host.name, None) is not None:
                network.set_loss(self.spec, host, None)
            self.unplugged.discard(host.name) if plugged else self.unplugged.add(host.name)
            if self.running(host):
                network.set_cable(self.spec, host, plugged=plugged)
            return {"plugged": plugged}

    def wait_ssh(self, host: LabHost, seconds: float) -> dict[str, Any]:
        """Wait for the host's SSH banner; LabError with the console's last lines when none comes in time."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if not self.running(host):
                message = f"{host.name} stopped while it started; its console said:\n{self._console(host)}"
                raise LabError(message)
            with (
                contextlib.suppress(OSError),
                socket.create_connection((str(host.address), 22), timeout=2) as link,
            ):
                if link.recv(64).startswith(_BANNER):
                    return {"seconds": round(time.monotonic() - started, 2)}
            time.sleep(0.1)
        message = f"{host.name}: no SSH banner from {host.address} within {seconds:.0f} s:\n{self._console(host)}"
        raise LabError(message)

    def status(self) -> dict[str, Any]:
        """Return each host's state."""
        return {
            host.name: {
                "state": self._state(host),
                "init": self.inits[host.name].pid if self.running(host) and host.name in self.inits else None,
                "cable": self._cable(host),
            }
            for host in self.spec.hosts
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        verb = request["verb"]
        if verb == "status":
            return self.status()
        host = self.spec.host(request["host"])
        verbs: dict[str, Callable[[], dict[str, Any]]] = {
            "start": lambda: self.start(host),
            "power-off": lambda: self.power_off(host),
            "wipe": lambda: self.wipe(host),
            "readdress": lambda: self.readdress(host, str(request["address"])),
            "freeze": lambda: self.freeze(host, frozen=True),
            "thaw": lambda: self.freeze(host, frozen=False),
            "cut": lambda: self.cut(host, request.get("packets")),
            "heal": lambda: self.cable(host, plugged=True),
            "wait-ssh": lambda: self.wait_ssh(host, float(request["seconds"])),
        }
        return verbs[verb]()

    def serve(self) -> None:
        """Answer requests for good."""
        self.spec.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            with control.short_path(self.spec) as path:
                listener.bind(path)
            self.spec.socket.chmod(0o600)
            listener.listen(16)
            self.record()
            while True:
                link, _address = listener.accept()
                threading.Thread(target=self._serve_one, args=(link,), daemon=True).start()

    def _serve_one(self, link: socket.socket) -> None:
        with link, link.makefile("rw", encoding="utf-8") as stream:
            try:
                reply = {"ok": self.answer(json.loads(stream.readline()))}
            except (LabError, OSError, KeyError, ValueError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 -- the supervisor's log
                reply = {"error": {"message": f"{error}" or type(error).__name__}}
            with contextlib.suppress(OSError):
                stream.write(json.dumps(reply) + "\n")
                stream.flush()

    def _state(self, host: LabHost) -> str:
        if not self.running(host):
            return "off"
        return "frozen" if cgroup.is_frozen(self.group(host)) else "running"

    def _cable(self, host: LabHost) -> str:
        if host.name in self.unplugged:
            return "cut"
        lost = self.losses.get(host.name)
        return "plugged" if lost is None else f"loses {lost}"

    def _restart_after_reboot(self, host: LabHost, child: subprocess.Popen[bytes]) -> None:
        # Someone may have powered the host off, and on again, in between: then it isn't ours to start.
        if child.wait() == _REBOOT and self.containers.get(host.name) is child:
            try:
                self.start(host)
            except (LabError, OSError) as error:
                print(f"{host.name} did not come back from its reboot: {error}", file=sys.stderr, flush=True)  # noqa: T201 -- the supervisor's log

    def _wait_init(self, host: LabHost, child: subprocess.Popen[bytes]) -> process.Identity:
        """Return the container's first process: the one child that systemd-nspawn keeps, with its own PID 1."""
        deadline = time.monotonic() + _INIT_DEADLINE
        while time.monotonic() < deadline and child.poll() is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                for number in (
                    Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="ascii").split()
                ):
                    status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
                    ranks = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                    cable = network.plugged(self.spec, host)
                    if ranks[-1] == "1" and len(ranks) > 2 and cable is not None:  # noqa: PLR2004 -- "NSpid:", here, there
                        identity = process.identify(int(number))
                        if identity is not None:
                            return identity
            time.sleep(0.02)
        message = f"{host.name} did not start; its console said:\n{self._console(host)}"
        raise LabError(message)

    def _console(self, host: LabHost) -> str:
        text = (self.spec.logs / f"{host.name}.console").read_text(encoding="utf-8", errors="replace")
        return "\n".join("  " + line for line in text.splitlines()[-15:])


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def main() -> None:
    """Run the supervisor; ``lab.lifecycle`` has already put us into the namespaces."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--state", required=True, type=Path)
    arguments = parser.parse_args()
    spec = LabSpec(arguments.name, arguments.state)
    # A fresh view of control groups, and a runtime folder of systemd-nspawn's own that goes with the namespace.
    run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    Path("/run/systemd").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run/systemd")
    Supervisor(spec, images.read(spec)).serve()


if __name__ == "__main__":
    main()
