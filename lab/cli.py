"""The commands of ``keadb lab`` (or ``python -m lab`` by itself)."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

import click

from lab import lifecycle, storage
from lab.api import Lab
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable


def _say(line: str) -> None:
    click.echo(line, err=True)


def _clear_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn LabError into one line and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LabError as error:
            raise click.ClickException(str(error)) from None

    return wrapped


def _with_lab(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the option --name, and the lab of that name as first argument."""

    @click.option("--name", envvar="KEADB_LAB", default="lab", show_default=True, help="Which lab.")
    @_clear_errors
    @functools.wraps(function)
    def wrapped(name: str, *args: Any, **kwargs: Any) -> Any:
        lifecycle.require_root()
        return function(Lab(name), *args, **kwargs)

    return wrapped


@click.group()
def lab() -> None:
    """Three hosts of a whole site as containers on this machine, in a network of their own."""


@lab.command()
@click.option(
    "--disk-mb",
    envvar="KEADB_LAB_DISK_MB",
    default=storage.DEFAULT_DISK_MB,
    show_default=True,
    help="Size of each host's disk, when it is made.",
)
@click.option("--no-secrets", is_flag=True, help="Only hosts: don't make the stack's secrets.")
@click.option("--bare", metavar="HOST", multiple=True, help="Start HOST with nothing installed on it; repeatable.")
@click.option(
    "--topology",
    type=click.Choice(["ha", "single"]),
    default="ha",
    show_default=True,
    help="Of a site file that is written now; all machines are there in any case.",
)
@click.option("--spare", is_flag=True, help="One machine more, which the site file does not have.")
@_with_lab
def up(it: Lab, disk_mb: int, bare: tuple[str, ...], topology: str, *, no_secrets: bool, spare: bool) -> None:
    """Start the hosts and wait for their SSH; starts again what was killed."""
    it.up(disk_mb=disk_mb, with_secrets=not no_secrets, bare=bare, topology=topology, spare=spare, say=_say)


@lab.command()
@click.option("--keep-disks", is_flag=True, help="Keep the state folder: disks, keys, site file, engine state.")
@_with_lab
def down(it: Lab, *, keep_disks: bool) -> None:
    """Remove the hosts and everything that belongs to them."""
    it.down(keep_disks=keep_disks, say=_say)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_with_lab
def status(it: Lab, *, as_json: bool) -> None:
    """Show each host's address and state; exit code 1 unless all of them run and are plugged in."""
    states = it.status()
    if as_json:
        rows = states and {h.name: {"address": str(h.address), **states[h.name]} for h in it.hosts}
        click.echo(json.dumps({"lab": it.spec.name, "up": states is not None, "hosts": rows or {}}, indent=2))
    elif states is None:
        click.echo(f"lab {it.spec.name} is not up")
    else:
        width = max(len(host.name) for host in it.hosts)
        click.echo(f"{'host':<{width}}  {'address':<14}  {'state':<8}  cable")
        for host in it.hosts:
            state = states[host.name]
            click.echo(f"{host.name:<{width}}  {host.address!s:<14}  {state['state']:<8}  {state['cable']}")
    whole = states is not None and all(s["state"] == "running" and s["cable"] == "plugged" for s in states.values())
    raise SystemExit(0 if whole else 1)


_PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@lab.command("exec", context_settings=_PASS_THROUGH)
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_with_lab
def exec_(it: Lab, host: str, command: tuple[str, ...]) -> None:
    """Run a command as root inside HOST; its input, output and exit code are passed through."""
    _become(it.exec_argv(host, _without_dashes(command)))


@lab.command(context_settings=_PASS_THROUGH)
@click.option("--as", "address", metavar="ADDRESS", help="From a machine of its own with this address.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_with_lab
def ns(it: Lab, command: tuple[str, ...], address: str | None) -> None:
    """Run a command of this machine inside the lab's network."""
    _become(it.ns_argv(_without_dashes(command), address=address))


@lab.command("power-off")
@click.argument("host")
@_with_lab
def power_off(it: Lab, host: str) -> None:
    """Take HOST's power: every process of it is killed at once."""
    _say(f"{host}: powered off" if it.power_off(host) else f"{host} was off already")


@lab.command("power-on")
@click.argument("host")
@_with_lab
def power_on(it: Lab, host: str) -> None:
    """Start HOST and wait for its SSH."""
    _say(f"{host}: runs" if it.power_on(host) else f"{host} ran already")


@lab.command()
@click.argument("host")
@_with_lab
def freeze(it: Lab, host: str) -> None:
    """Stop every process of HOST where it stands; its connections stay open and silent."""
    _say(f"{host}: frozen" if it.freeze(host) else f"{host} was frozen already")


@lab.command()
@click.argument("host")
@_with_lab
def thaw(it: Lab, host: str) -> None:
    """Let a frozen HOST go on."""
    _say(f"{host}: goes on" if it.thaw(host) else f"{host} was not frozen")


@lab.command()
@click.argument("host")
@click.option("--same-key", is_flag=True, help="Keep its SSH host key and the site file: a loss nobody told about.")
@_with_lab
def rebuild(it: Lab, host: str, *, same_key: bool) -> None:
    """Install HOST anew: an empty disk and a new SSH host key, which the lab's site file is told."""
    it.rebuild(host, same_key=same_key, say=_say)
    _say(f"{host}: installed anew; bring it back with: keadb up --stack {it.spec.name}")


@lab.command()
@click.argument("host")
@click.argument("address")
@_with_lab
def readdress(it: Lab, host: str, address: str) -> None:
    """Start HOST again with another ADDRESS, which the lab's site file is told."""
    it.readdress(host, address, say=_say)
    _say(f"{host}: has {address}; tell the site: keadb up --stack {it.spec.name}")


@lab.command()
@click.argument("host")
@click.option(
    "--packets",
    type=click.Choice(["all", "sent", "received"]),
    help="Leave the cable in and lose these packets of HOST on the way, silently.",
)
@_with_lab
def cut(it: Lab, host: str, packets: str | None) -> None:
    """Pull HOST's network cable; its processes go on."""
    it.cut(host, packets)
    _say(f"{host}: cut from the network" if packets is None else f"{host}: loses {packets} packets")


@lab.command()
@click.argument("host")
@_with_lab
def heal(it: Lab, host: str) -> None:
    """Plug HOST's network cable in again; end every loss of packets."""
    it.heal(host)
    _say(f"{host}: plugged in")


@lab.command()
@_with_lab
def load(it: Lab) -> None:
    """Load the sample reservations into the lab's database; a second time changes nothing."""
    from lab.load import load as load_reservations  # noqa: PLC0415 -- needs the site model; the rest of the lab doesn't

    done = load_reservations(it)
    click.echo(f"{done['added']} reservations added, {done['total']} in the database")


def _without_dashes(command: tuple[str, ...]) -> list[str]:
    words = list(command)
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        message = "no command given"
        raise click.UsageError(message)
    return words


def _become(argv: list[str]) -> None:
    """Replace this process, so that terminal, signals, input and exit code are the command's own."""
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- no shell, on purpose
    except FileNotFoundError:
        message = f"{argv[0]} is not installed; run: python -m lab.packages"
        raise LabError(message) from None
