"""How to break each item of the audit on purpose, and how to mend it again; many of them at once.

A round is broken as a whole, audited once and mended as a whole: its breakages do not touch each other. ``also`` are
items that cannot but fail with the others of the round. Not here: what only another version or site file would
break (the test does that), and etcd's login, which takes a password.
"""

from __future__ import annotations

from dataclasses import dataclass

DATA = "/var/lib/postgresql/15/kea"
OVERRIDE = "zz-audit.conf"
"""A drop-in that is read after ours."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Breakages on one host (``leader``, ``standby`` or ``witness``), by item, as shell that runs as root.

    ``first`` runs before them and ``then`` after. ``everywhere`` says that what is broken on the leader reaches the
    standby too.
    """

    name: str
    host: str
    breaks: dict[str, str]
    mends: str
    also: tuple[str, ...] = ()
    everywhere: bool = False
    first: str = ""
    then: str = ""


def _sql(*statements: str, database: str = "kea") -> str:
    script = ";\n".join(statements)
    return f"runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {database} <<'SQL'\n{script};\nSQL\n"


def _setting(text: str) -> str:
    return _sql(f"ALTER SYSTEM SET {text}")


_RESET = _sql("ALTER SYSTEM RESET ALL")
_RELOAD = _sql("SELECT pg_reload_conf()") + "sleep 2\n"

SETTINGS = Round(
    name="settings",
    host="standby",
    breaks={
        "durable-writes": _setting("full_page_writes = off"),
        "damage-not-hidden": _setting("zero_damaged_pages = on"),
        "settings-in-force": _setting("max_files_per_process = 900"),
        "log-destination": _setting("log_destination = 'syslog'"),
        "log-messages": _setting("log_min_messages = 'panic'"),
        "log-failed-statements": _setting("log_min_error_statement = 'panic'"),
        "log-no-debugging": _setting("debug_pretty_print = off"),
        "log-sessions": _setting("log_disconnections = off"),
        "log-no-names": _setting("log_hostname = on"),
        "log-prefix": _setting("log_line_prefix = '%m '"),
        "log-statements": _setting("log_statement = 'none'"),
        "log-time": _setting("log_timezone = 'Europe/Berlin'"),
        "log-no-values": _setting("log_parameter_max_length = -1"),
        "log-replication": _setting("log_replication_commands = off"),
        "log-waits": _setting("log_lock_waits = off"),
        "login-timeout": _setting("authentication_timeout = 600"),
        "password-encryption": _setting("password_encryption = 'md5'"),
        "tls-version": _setting("ssl_min_protocol_version = 'TLSv1'"),
        "tls-ciphers": _setting("ssl_ciphers = 'HIGH:MEDIUM'"),
        "runtime-backend": _setting("jit = on"),
        "runtime-superuser": _setting("lo_compat_privileges = on"),
        "idle-transactions": _setting("idle_in_transaction_session_timeout = 0"),
        "libraries": _setting("session_preload_libraries = 'auto_explain'"),
    },
    then=_RELOAD,
    # What waits for a restart goes on waiting until it is said to be as it was.
    mends=_setting("max_files_per_process = 1000") + _RELOAD + _RESET + _RELOAD,
)

NO_TLS = Round(
    name="no TLS",
    host="standby",
    breaks={"tls-on": _setting("ssl = off")},
    # PostgreSQL says of rules for TLS that they cannot match any more.
    also=("hba-as-declared",),
    then=_RELOAD,
    mends=_RESET + _RELOAD,
)

INSIDE = Round(
    name="inside the database",
    host="leader",
    everywhere=True,
    breaks={
        "superusers": _sql("CREATE ROLE audit_super SUPERUSER NOLOGIN"),
        "role-attributes": _sql("CREATE ROLE audit_maker CREATEDB NOLOGIN"),
        "logins-as-declared": _sql("CREATE ROLE audit_login LOGIN"),
        "password-verifiers": _sql("SET password_encryption = 'md5'", "CREATE ROLE audit_md5 PASSWORD 'of a test'"),
        "memberships": _sql("GRANT pg_monitor TO kea_read"),
        "replication-role": _sql("CREATE ROLE audit_replica REPLICATION NOLOGIN"),
        "public-rights": _sql("GRANT CONNECT ON DATABASE kea TO PUBLIC"),
        "create-rights": _sql("GRANT CREATE ON SCHEMA public TO kea_read"),
        "definer-functions": _sql(
            "CREATE FUNCTION public.audit_definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
        ),
        "extensions": _sql("CREATE EXTENSION pageinspect SCHEMA kea_ext"),
        "databases": _sql("CREATE DATABASE audit_database"),
        "owners": _sql("CREATE TABLE public.audit_table (id int)"),
    },
    then="sleep 2\n",
    mends=_sql("DROP DATABASE audit_database")
    + _sql(
        "REVOKE CONNECT ON DATABASE kea FROM PUBLIC",
        "REVOKE CREATE ON SCHEMA public FROM kea_read",
        "REVOKE pg_monitor FROM kea_read",
        "DROP TABLE public.audit_table",
        "DROP EXTENSION pageinspect",
        "DROP FUNCTION public.audit_definer",
        "DROP ROLE audit_super, audit_maker, audit_login, audit_md5, audit_replica",
    )
    + "sleep 2\n",
)


def _rule(line: str) -> str:
    return f"sed -i '1i {line}' {DATA}/pg_hba.conf\n"


RULES = Round(
    name="rules of pg_hba",
    host="standby",
    # Read by the audit from the file; nobody reloads it.
    first=f"cp -p {DATA}/pg_hba.conf /root/pg_hba.conf\n",
    breaks={
        "hba-local": _rule("local kea nobody peer"),
        "hba-methods": _rule("hostssl kea kea_read 10.0.0.1/32 md5"),
        "hba-tls": _rule("host kea kea_read 10.0.0.2/32 scram-sha-256"),
        "hba-addresses": _rule("hostssl kea all 10.0.0.3/32 scram-sha-256"),
        "hba-superuser": _rule("hostssl kea postgres 10.0.0.4/32 scram-sha-256"),
    },
    also=("hba-as-declared",),
    mends=f"mv /root/pg_hba.conf {DATA}/pg_hba.conf\n",
)

_SSHD = "/etc/ssh/sshd_config.d"
_APT = "/etc/apt/apt.conf.d/99audit"
WITNESS = Round(
    name="the witness",
    host="witness",
    breaks={
        "files-private": "chmod 0644 /var/lib/keadb/tls/client.key\n",
        "folders-private": "chmod 0755 /var/lib/keadb/tls\n",
        "files-configuration": "chmod 0666 /etc/etcd/keadb.yml\n",
        "psql-history": "touch /root/.psql_history\n",
        "journal": "chmod 2777 /var/log/journal\n",
        "accounts-locked": "echo keadb:of-a-test | chpasswd\n",
        "sudo": "umask 0227; echo 'keadb ALL=(root) NOPASSWD: /usr/bin/id' >/etc/sudoers.d/audit; umask 022\n",
        "ssh-login": f"printf 'Match User keadb\\n PasswordAuthentication yes\\n' >{_SSHD}/04-audit.conf\n",
        "ssh-forwarding": f"printf 'Match User keadb\\n X11Forwarding yes\\n' >{_SSHD}/05-audit.conf\n",
        "no-unattended-restarts": f"echo 'Unattended-Upgrade::Automatic-Reboot \"true\";' >{_APT}\n",
        "packages-held": "apt-mark unhold etcd-server >/dev/null\n",
        "sockets": "systemd-run -q --unit=audit-listener python3 -m http.server 9999; sleep 1\n",
    },
    mends=(
        "chmod 0600 /var/lib/keadb/tls/client.key; chmod 0700 /var/lib/keadb/tls; chmod 0644 /etc/etcd/keadb.yml\n"
        f"rm -f /root/.psql_history /etc/sudoers.d/audit {_SSHD}/0?-audit.conf {_APT}\n"
        "chmod 2755 /var/log/journal; usermod -p '*' keadb; apt-mark hold etcd-server >/dev/null\n"
        "systemctl stop audit-listener\n"
    ),
)

_DROP_IN = f"/run/systemd/system/haproxy.service.d/{OVERRIDE}"
CONFINEMENT = Round(
    name="confinement",
    host="standby",
    first=f"mkdir -p {_DROP_IN.rpartition('/')[0]}; echo '[Service]' >{_DROP_IN}\n",
    breaks={
        "sandbox": f"printf 'ProtectSystem=no\\nProtectKernelModules=no\\nPrivateDevices=no\\n' >>{_DROP_IN}\n",
        "service-users": f"printf 'User=root\\nGroup=root\\n' >>{_DROP_IN}\n",
        "processes-confined": "printf 'NoNewPrivileges=no\\nCapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE\\n'"
        f" >>{_DROP_IN}\n",
        "core-dumps": f"echo LimitCORE=infinity >>{_DROP_IN}\n",
        "umask": f"echo UMask=0022 >>{_DROP_IN}\n",
        "no-password-in-environment": f"echo Environment=PGPASSWORD=of-a-test >>{_DROP_IN}\n",
    },
    then="systemctl daemon-reload; systemctl restart haproxy; sleep 1\n",
    mends=f"rm {_DROP_IN}; systemctl daemon-reload; systemctl restart haproxy\n",
)

_COPIES = (
    "/etc/pgbouncer/pgbouncer.ini /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf /etc/patroni/config.yml"
)
AROUND = Round(
    name="services around",
    host="standby",
    # Patroni takes its umask from the data directory when it reads its files again.
    also=("umask",),
    first=f"mkdir -p /root/kept; cp -p {_COPIES} /root/kept\n",
    breaks={
        "data-directory": f"chmod 0750 {DATA}\n",
        "pooler-logins": "echo 'admin_users = postgres' >>/etc/pgbouncer/pgbouncer.ini\n",
        "pooler-tls": "sed -i 's/^client_tls_sslmode.*/client_tls_sslmode = allow/' /etc/pgbouncer/pgbouncer.ini\n",
        "proxy-socket": "chmod 0666 /run/keadb-haproxy/admin.sock\n",
        "proxy-checks": "sed -i 's/ssl-server-verify required/ssl-server-verify none/' /etc/haproxy/haproxy.cfg\n",
        "address-peers": "sed -i '/check_unicast_src/d' /etc/keepalived/keepalived.conf\n",
        # Patroni without certificate and password for a change.
        "patroni-rest": (
            "sed -i 's/verify_client: required/verify_client: none/; /^  authentication:/,/^    password/d' "
            "/etc/patroni/config.yml; systemctl reload patroni; sleep 5\n"
        ),
    },
    mends=(
        "for path in pgbouncer/pgbouncer.ini haproxy/haproxy.cfg keepalived/keepalived.conf patroni/config.yml; do\n"
        "    cp -p /root/kept/${path##*/} /etc/$path\ndone\n"
        f"rm -r /root/kept; chmod 0700 {DATA}; chmod 0600 /run/keadb-haproxy/admin.sock\n"
        "systemctl reload patroni; sleep 3\n"
    ),
)

_STOPPED = "systemctl stop patroni\n"
_CHECKSUMS = "runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_checksums {} -D " + DATA + " >/dev/null\n"
_STARTED = (
    "systemctl start patroni\n"
    "for _ in $(seq 60); do\n"
    "    patronictl -c /etc/patroni/config.yml list -f tsv | grep -q 'Sync Standby.streaming' && break\n"
    "    sleep 1\ndone\n"
)
STOPPED = Round(
    name="what needs a stopped PostgreSQL",
    host="standby",
    first=_STOPPED,
    breaks={
        "data-checksums": _CHECKSUMS.format("--disable"),
        "listen-addresses": "sed -i 's/,127.0.0.1:5432/,127.0.0.1,127.0.0.2:5432/' /etc/patroni/config.yml\n",
    },
    also=("sockets",),
    then=_STARTED,
    mends=(
        _STOPPED
        + _CHECKSUMS.format("--enable")
        + "sed -i 's/,127.0.0.1,127.0.0.2:/,127.0.0.1:/' /etc/patroni/config.yml\n"
        + _STARTED
    ),
)

_ETCD = "ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/keadb/tls/ca.crt "
_ETCD += "--cert=/var/lib/keadb/tls/client.crt --key=/var/lib/keadb/tls/client.key "
AUTHENTICATION = 'read -r password; export ETCDCTL_USER="root:$password"; ' + _ETCD + "auth {} >/dev/null"
"""Turns etcd's authentication to ``enable`` or ``disable``; root's password comes on stdin."""
ETCD = Round(
    name="etcd",
    host="witness",
    first="cp -p /etc/etcd/keadb.yml /root/keadb.yml\n",
    breaks={
        "etcd-certificates": (
            "sed -i '/^client-transport/,/^peer/ { /client-cert-auth/d; /trusted-ca-file/d }' /etc/etcd/keadb.yml\n"
            "systemctl restart keadb-etcd; sleep 2\n"
        ),
    },
    mends="mv /root/keadb.yml /etc/etcd/keadb.yml; systemctl restart keadb-etcd; sleep 2\n",
)

FIREWALL = Round(
    name="firewall",
    host="witness",
    breaks={
        "firewall-as-declared": "nft add rule inet keadb input tcp dport 9 accept\n",
        "firewall-default": (
            "nft 'add chain inet keadb forward { type filter hook forward priority filter; policy accept; }'\n"
        ),
        "firewall-at-boot": "systemctl disable --quiet keadb-firewall\n",
    },
    mends="systemctl enable --quiet keadb-firewall; systemctl reload keadb-firewall\n",
)

ROUNDS = (SETTINGS, NO_TLS, INSIDE, RULES, WITNESS, CONFINEMENT, AROUND, STOPPED, ETCD, FIREWALL)
