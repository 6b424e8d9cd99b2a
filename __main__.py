"""The program: load the site, wire its components, export what other tools need."""

import pulumi

from components.catalog import bundles
from components.etcd_cluster import EtcdCluster, EtcdClusterArgs
from components.firewall import Firewall
from components.host import Host, HostArgs
from components.kea_database import KeaDatabase
from components.pooler import Pooler
from components.postgres_cluster import PostgresCluster
from components.proxy import Proxy
from components.site_secrets import SiteSecrets
from components.virtual_address import VirtualAddress
from infra.existing import existing_machines
from keadb.clients import conninfo, read_conninfo
from keadb.site import load_site

stack = pulumi.get_stack()
config = pulumi.Config("keadb")
site = load_site(config.require_object("site"), source=f"Pulumi.{stack}.yaml")
secrets = SiteSecrets.from_config(config, stack)

planned = bundles(site)
hosts = {
    name: Host(HostArgs(site=site, machine=machine, secrets=secrets, bundles=planned[name]))
    for name, machine in existing_machines(site).items()
}
firewall = Firewall(site, hosts)
etcd = EtcdCluster(EtcdClusterArgs(site=site, hosts=hosts))
postgres = PostgresCluster(site, hosts, etcd)
kea = KeaDatabase(site, hosts, postgres)
VirtualAddress(site, hosts, Proxy(site, hosts, Pooler(site, hosts, kea)))
firewall.close(depends_on=[step for host in hosts.values() for step in host.applied])
applied = [step for host in hosts.values() for step in host.applied]
for host in hosts.values():
    host.prune(depends_on=applied)

pulumi.export("site", site.name)
pulumi.export("conninfo", conninfo(site))
pulumi.export("read_conninfo", read_conninfo(site))
