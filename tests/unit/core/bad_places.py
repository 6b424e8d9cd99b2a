"""Bad site files: what is changed in a valid one, and the one problem of names, addresses and hosts."""

from __future__ import annotations

from tests.unit.core.samples import Data, drop, ha, put, says, single

ADDRESS = 'an IPv4 address such as "172.30.17.10"'
SUBNET = 'a private network with a prefix of 16 to 28, such as "172.30.17.0/24"'
LABEL = "a DNS label: lower-case letters, digits and dashes, at most 63 characters"
DB1, DB2, WITNESS = "hosts/lab-kea-db-01", "hosts/lab-kea-db-02", "hosts/lab-kea-witness"

PLACES: dict[str, tuple[Data, str]] = {
    "site name in capitals": (
        put(single(), "name", "Lab"),
        says(
            "name",
            "is not of the right form",
            '"Lab"',
            "lower-case letters, digits and dashes, at most 20 characters",
        ),
    ),
    "site name that YAML made false": (
        put(ha(), "name", False),
        says(
            "name",
            "is not text (YAML reads yes, no, on and off as true and false: quote it)",
            "False",
            "lower-case letters, digits and dashes, at most 20 characters",
        ),
    ),
    "unknown topology": (
        put(ha(), "topology", "dual"),
        says("topology", "is not one of the known values", '"dual"', '"ha" or "single"'),
    ),
    "unknown platform": (
        put(ha(), "platform", "debian-12"),
        says("platform", "is not one of the known values", '"debian-12"', '"ubuntu-24.04" or "debian-13"'),
    ),
    "domain of one label": (
        put(ha(), "domain", "example"),
        says("domain", "is not of the right form", '"example"', 'a DNS domain such as "example.com"'),
    ),
    "missing section": (drop(ha(), "tls"), says("tls", "is missing", "nothing", "this key is needed")),
    "missing key": (
        drop(ha(), f"{DB1}/ssh_host_key"),
        says("hosts.lab-kea-db-01.ssh_host_key", "is missing", "nothing", "this key is needed"),
    ),
    "unknown key": (
        put(ha(), "patroni/loopwait", 3),
        says(
            "patroni.loopwait",
            'is not a known key; did you mean "loop_wait"?',
            "3",
            "ttl, loop_wait, retry_timeout, primary_start_timeout, maximum_lag_on_failover_mb, synchronous_mode",
        ),
    ),
    "unknown key like nothing known": (
        put(ha(), "tls/zzz", 3),
        says("tls.zzz", "is not a known key", "3", "ca_epoch, epoch"),
    ),
    "a host that gives its own name": (
        put(ha(), f"{DB1}/name", "x"),
        says(
            "hosts.lab-kea-db-01.name",
            "is not a known key",
            '"x"',
            "roles, address, ssh_host_key, ssh_user, ssh_port, failure_domain, cores, memory_mb, disk_gb, generation",
        ),
    ),
    "no deploy source": (
        drop(ha(), "network/deploy"),
        says("network.deploy", "is missing", "nothing", "this key is needed"),
    ),
    "an empty list of deploy sources": (
        put(ha(), "network/deploy", []),
        says("network.deploy", "has too few entries", "[]", "a list of IPv4 addresses or networks, at least one"),
    ),
    "everybody as a deploy source": (
        put(ha(), "network/deploy", ["0.0.0.0/0"]),
        says(
            "network.deploy.0",
            "is too large a network, or one that is not private",
            '"0.0.0.0/0"',
            'an IPv4 address, or a private network of prefix 16 to 32 such as "172.30.40.0/26"',
        ),
    ),
    "a package source without a port": (
        put(ha(), "network/packages", ["172.30.30.1"]),
        says(
            "network.packages.0",
            "is not an address with a port",
            '"172.30.30.1"',
            'an IPv4 address with a port, such as "172.30.17.1:3142"',
        ),
    ),
    "a package source with a port that is none": (
        put(ha(), "network/packages", ["172.30.30.1:65536"]),
        says(
            "network.packages.0",
            "is not an address with a port",
            '"172.30.30.1:65536"',
            'an IPv4 address with a port, such as "172.30.17.1:3142"',
        ),
    ),
    "a package source by name": (
        put(ha(), "network/packages", ["packages.example.com:443"]),
        says("network.packages.0", "is not an IPv4 address", '"packages.example.com:443"', ADDRESS),
    ),
    "subnet with host bits": (
        put(ha(), "network/subnet", "172.30.30.1/24"),
        says("network.subnet", "has bits set behind its prefix", '"172.30.30.1/24"', SUBNET),
    ),
    "public subnet": (
        put(ha(), "network/subnet", "8.8.8.0/24"),
        says("network.subnet", "is not private", '"8.8.8.0/24"', SUBNET),
    ),
    "subnet too small": (
        put(ha(), "network/subnet", "172.30.30.0/29"),
        says("network.subnet", "is too large or too small for a site", '"172.30.30.0/29"', SUBNET),
    ),
    "subnet too large": (
        put(ha(), "network/subnet", "10.0.0.0/8"),
        says("network.subnet", "is too large or too small for a site", '"10.0.0.0/8"', SUBNET),
    ),
    "address as a number": (
        put(ha(), f"{DB1}/address", 2887654922),
        says("hosts.lab-kea-db-01.address", "is not an IPv4 address", "2887654922", ADDRESS),
    ),
    "address with leading zeros": (
        put(ha(), f"{DB1}/address", "172.30.030.10"),
        says("hosts.lab-kea-db-01.address", "is not an IPv4 address", '"172.30.030.10"', ADDRESS),
    ),
    "loopback address": (
        put(ha(), "network/dns", ["127.0.0.1"]),
        says("network.dns.0", "is an address that no machine of a site can have", '"127.0.0.1"', ADDRESS),
    ),
    "host outside the subnet": (
        put(ha(), f"{DB1}/address", "172.30.31.10"),
        says(
            "hosts.lab-kea-db-01.address",
            "is outside the site's subnet",
            '"172.30.31.10"',
            "an address inside 172.30.30.0/24",
        ),
    ),
    "gateway outside the subnet": (
        put(ha(), "network/gateway", "172.30.31.1"),
        says(
            "network.gateway",
            "is outside the site's subnet",
            '"172.30.31.1"',
            "an address inside 172.30.30.0/24",
        ),
    ),
    "broadcast address": (
        put(ha(), "network/vip", "172.30.30.255"),
        says(
            "network.vip",
            "is the subnet's network or broadcast address",
            '"172.30.30.255"',
            "a machine's address inside 172.30.30.0/24",
        ),
    ),
    "two hosts with one address": (
        put(ha(), f"{DB2}/address", "172.30.30.10"),
        says(
            "hosts.lab-kea-db-02.address",
            "is also that of hosts.lab-kea-db-01.address",
            '"172.30.30.10"',
            "an address of its own",
        ),
    ),
    "VIP on a host": (
        put(ha(), "network/vip", "172.30.30.12"),
        says(
            "hosts.lab-kea-witness.address",
            "is also that of network.vip",
            '"172.30.30.12"',
            "an address of its own",
        ),
    ),
    "Kea server on the VIP": (
        put(ha(), "kea/servers", {"lab-kea": "172.30.30.13"}),
        says("kea.servers.lab-kea", "is also that of network.vip", '"172.30.30.13"', "an address of its own"),
    ),
    "DNS on a database host": (
        put(ha(), "network/dns", ["172.30.30.1", "172.30.30.10"]),
        says(
            "network.dns.1",
            "is also that of hosts.lab-kea-db-01.address",
            '"172.30.30.10"',
            "a server outside the cluster",
        ),
    ),
    "the same NTP server twice": (
        put(ha(), "network/ntp", ["172.30.30.1", "172.30.30.1"]),
        says("network.ntp", "has an entry twice", "['172.30.30.1', '172.30.30.1']", "a list of IPv4 addresses"),
    ),
    "clients from everywhere": (
        put(ha(), "network/clients", ["0.0.0.0/0"]),
        says(
            "network.clients.0",
            "is too large a network, or one that is not private",
            '"0.0.0.0/0"',
            'an IPv4 address, or a private network of prefix 16 to 32 such as "172.30.40.0/26"',
        ),
    ),
    "DNS not a list": (
        put(ha(), "network/dns", "172.30.30.1"),
        says("network.dns", "is not a list", '"172.30.30.1"', "a list of IPv4 addresses"),
    ),
    "host of another site": (
        put(drop(ha(), DB1), "hosts/us1-kea-db-01", ha()["hosts"]["lab-kea-db-01"]),
        says(
            "hosts.us1-kea-db-01",
            "is not named after its site",
            '"us1-kea-db-01"',
            'a name that starts with "lab-"',
        ),
    ),
    "host name too long with its domain": (
        put(drop(ha(), WITNESS), f"hosts/lab-{'x' * 50}", ha()["hosts"]["lab-kea-witness"]),
        says(
            f"hosts.lab-{'x' * 50}",
            "has too long a full name",
            f'"lab-{"x" * 50}.example.com"',
            "at most 64 characters with the domain",
        ),
    ),
    "host name that is no label": (
        put(drop(ha(), DB1), "hosts/lab_kea_db_01", ha()["hosts"]["lab-kea-db-01"]),
        says("hosts.lab_kea_db_01", "is not of the right form", '"lab_kea_db_01"', LABEL),
    ),
    "hosts as a list": (
        put(ha(), "hosts", [1]),
        says("hosts", "is not a mapping", "[1]", "host names with their settings"),
    ),
    "a host that is text": (
        put(ha(), DB1, "172.30.30.10"),
        says("hosts.lab-kea-db-01", "is not a mapping", '"172.30.30.10"', "a mapping of keys"),
    ),
    "unknown role": (
        put(ha(), f"{DB1}/roles", ["database", "etdc"]),
        says(
            "hosts.lab-kea-db-01.roles",
            "is not a list of known roles",
            "['database', 'etdc']",
            "a list of database, etcd and witness, at least one",
        ),
    ),
    "two etcd members": (
        put(ha(), f"{DB2}/roles", ["database"]),
        says(
            "hosts",
            "has a number of etcd members that cannot elect safely",
            "2 (lab-kea-db-01, lab-kea-witness)",
            "an odd number, at least 3",
        ),
    ),
    "one database host in ha": (
        put(ha(), f"{DB2}/roles", ["etcd"]),
        says(
            "hosts",
            "has the wrong number of database hosts",
            "1 (lab-kea-db-01)",
            '2 in topology "ha"',
        ),
    ),
    "no witness": (
        put(ha(), f"{WITNESS}/roles", ["etcd"]),
        says("hosts", "has the wrong number of witnesses", "0", "exactly one"),
    ),
    "witness on a database host's hypervisor": (
        put(ha(), f"{WITNESS}/failure_domain", "hv-b"),
        says(
            "hosts.lab-kea-witness.failure_domain",
            "puts two etcd members on one hypervisor (lab-kea-db-02 and lab-kea-witness)",
            '"hv-b"',
            "a hypervisor of its own, or accept.shared_hypervisor with a reason and an end",
        ),
    ),
}
