"""Command ``connect``: words only; the work is in ``ops.connect``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

import click

from ops.exits import CommandError, Exit


@click.command()
@click.option("--stack", "-s", "name", required=True, help="Stack, as in Pulumi.<stack>.yaml.")
@click.option("--read", is_flag=True, help="The read port, as kea_read: a standby when one keeps up.")
@click.option("--direct", is_flag=True, help="The leader's PostgreSQL itself, for when pooler or proxy are broken.")
@click.option("--show", is_flag=True, help="Print the connection string and stop; no password in it.")
@click.argument("psql", nargs=-1)
def connect(*, name: str, read: bool, direct: bool, show: bool, psql: tuple[str, ...]) -> int:
    """Open psql through the virtual address, as kea_owner. What follows -- goes to psql."""
    from keadb.pki import ca_certificate
    from ops import connect as module
    from ops import sites
    from ops.secrets import secret_values
    from ops.stacks import enter_namespace, resolve

    if read and direct:
        msg = "connect: give either --read or --direct"
        raise CommandError(msg, Exit.USAGE)
    stack = resolve(name)
    site = sites.load(stack)
    to = module.plan(site, "read" if read else "direct" if direct else "write")
    if show:
        click.echo(to.conninfo)
        return Exit.OK
    enter_namespace(stack)
    mine = module.own_address(site.network.vip)
    if mine is not None and (warning := module.refused_source(site, mine)):
        click.echo(f"warning: {warning}", err=True)
    values = secret_values(stack)
    click.echo(to.said(site), err=True)
    module.start(to, site=site, password=values[to.secret], ca=ca_certificate(values["ca_key"], site), arguments=psql)
    return Exit.OK
