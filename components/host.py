"""One host under keadb's care: the only caller of ``remote.Command``.

A host is reached as the site's own deploy identity with its host key pinned, gets the applier, the secrets that
it needs, the base system and its certificates. Services then hand it bundles; at the end ``prune`` takes away what
bundles placed that the site no longer has here. It never restarts a machine, never opens a second way in, and
deletes nothing on the host when the host itself leaves the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from pulumi_command import remote

from components.base_system import base_bundle
from keadb import hostkit_source, naming, pki
from keadb.bootstrap import bootstrap_command
from keadb.bundle import applier_command, plain_json
from keadb.platforms import platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.site_secrets import SiteSecrets
    from infra.machine import Machine
    from keadb.bundle import Bundle
    from keadb.site import Site


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    """What a host is made of: its machine, the site, the site's secrets, and the bundles it will be given.

    ``bundles`` is only used to know which secrets the host needs and which bundles it has; ``Host.apply`` sends them.
    """

    site: Site
    machine: Machine
    secrets: SiteSecrets
    bundles: Sequence[Bundle]


class Host(pulumi.ComponentResource):
    """A host with applier, secrets, base system and certificates, ready for the bundles of services.

    Creates five commands: bootstrap, secrets, base, keys, certificates. ``ready`` is what everything else on
    this host waits for, ``applied`` are the commands that send it bundles.
    """

    ready: tuple[pulumi.Resource, ...]
    applied: list[pulumi.Resource]

    def __init__(self, args: HostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the host under its own name."""
        self.spec = args.site.hosts[args.machine.name]
        super().__init__(naming.type_token("components", "Host"), self.spec.name, {}, opts)
        self.applied = []
        self._names = sorted(bundle.name for bundle in args.bundles)
        self._secrets = args.secrets
        self._machine = args.machine
        self._connection = remote.ConnectionArgs(
            host=args.machine.address,
            port=args.machine.port,
            user=args.machine.user,
            private_key=args.secrets.output("deploy_key"),
            host_key=args.machine.host_key,
            dial_error_limit=args.machine.dial_retries,
            per_dial_timeout=5,
        )
        bootstrap = self._command(
            "bootstrap",
            create=bootstrap_command(platform(args.site.platform)),
            stdin=plain_json({"format": 1, "modules": hostkit_source.modules()}),
            depends_on=args.machine.depends_on,
        )
        store = self._command(
            "secrets",
            create=applier_command("secrets"),
            stdin=self._store_request(args.bundles),
            logging=remote.Logging.NONE,
            depends_on=[bootstrap],
        )
        # Until it is assigned for good, the base bundle itself needs something to wait for.
        self.ready = (store,)
        base = self.apply(base_bundle(args.site, self.spec))
        keys = self._command(
            "keys",
            create=applier_command("keys"),
            stdin=plain_json({"names": sorted(pki.certificates(args.site, self.spec))}),
            logging=remote.Logging.NONE,
            depends_on=[base],
        )
        certificates = self._command(
            "certificates",
            create=applier_command("certificates"),
            stdin=keys.stdout.apply(lambda answer: self._signed(args.site, answer)),
            depends_on=[keys],
        )
        self.ready = (certificates,)
        self.register_outputs({"address": args.machine.address, "certificates": certificates.stdout})

    def apply(
        self,
        bundle: Bundle,
        *,
        depends_on: Sequence[pulumi.Resource] = (),
        parent: pulumi.Resource | None = None,
    ) -> pulumi.Resource:
        """Send a bundle to the applier; it runs again whenever a byte of the bundle or a used secret changes.

        Raises ValueError for a bundle of another host.
        """
        if bundle.host != self.spec.name:
            msg = f"bundle {bundle.name} is for {bundle.host}, not for {self.spec.name}"
            raise ValueError(msg)
        sent = self._command(
            bundle.name,
            create=applier_command("apply"),
            stdin=bundle.to_json(self._secrets.fingerprints(bundle.secrets)),
            depends_on=[*self.ready, *depends_on],
            parent=parent,
        )
        self.applied.append(sent)
        return sent

    def wait_for(self, resource: pulumi.Resource) -> None:
        """Have every bundle that this host is given from now on wait for ``resource`` too."""
        self.ready = (*self.ready, resource)

    def prune(self, depends_on: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Tell the host which bundles it has, so that it takes away all others; runs when that list changes.

        Give it every bundle of the site to wait for: what goes may still be needed until all of them are in force.
        """
        return self._command(
            "prune",
            create=applier_command("prune"),
            stdin=plain_json({"host": self.spec.name, "bundles": self._names}),
            depends_on=[*self.ready, *depends_on],
        )

    def _command(
        self,
        step: str,
        *,
        create: str,
        stdin: pulumi.Input[str],
        depends_on: Sequence[pulumi.Resource],
        logging: remote.Logging = remote.Logging.STDERR,
        parent: pulumi.Resource | None = None,
    ) -> remote.Command:
        """Register one command: no update and no delete text, so that a run is always the same ``create``."""
        return remote.Command(
            naming.resource(self.spec.name, step),
            connection=self._connection,
            create=create,
            stdin=stdin,
            logging=logging,
            add_previous_output_in_env=False,
            # A rebuilt machine changes no other input; its generation in the site file says that it is new.
            triggers=[self.spec.generation],
            opts=pulumi.ResourceOptions(parent=parent or self, depends_on=list(depends_on)),
        )

    def _store_request(self, bundles: Sequence[Bundle]) -> pulumi.Output[str]:
        needed = sorted({name for bundle in bundles for name in bundle.secrets})
        return pulumi.Output.secret(plain_json({"secrets": {name: self._secrets.value(name) for name in needed}}))

    def _signed(self, site: Site, answer: str) -> str:
        """Return the request of the certificates command for what the keys command answered."""
        requests: Mapping[str, str] = json.loads(answer)["requests"]
        specs = pki.certificates(site, self.spec)
        ca_key = self._secrets.value("ca_key")
        return plain_json(
            {
                "ca": pki.ca_certificate(ca_key, site),
                "certificates": {
                    name: pki.sign(ca_key, site, requests[name], spec) for name, spec in sorted(specs.items())
                },
            }
        )
