"""PostgreSQL parameters that a site file cannot set under ``postgresql.parameters``, and what to do instead."""

from __future__ import annotations

_OWN_KEY = "has a key of its own: "
_FIXED = "is set by keadb, the same at every site"
_PATRONI = "is set by Patroni"
_DURABLE = "stays on: acknowledged data must survive"

_RESERVED = {
    "max_connections": f"{_OWN_KEY}postgresql.max_connections",
    "shared_buffers": f"{_OWN_KEY}postgresql.shared_buffers_mb",
    "synchronous_standby_names": f"{_PATRONI}; use patroni.synchronous_mode",
    "cluster_name": f"{_PATRONI}, to the site's name",
    "listen_addresses": f"{_FIXED}; use hosts.NAME.address",
    "port": f"{_FIXED} (5432)",
    "data_directory": f"{_FIXED}; use postgresql.version",
    "config_file": _FIXED,
    "hba_file": _FIXED,
    "ident_file": _FIXED,
    "external_pid_file": _FIXED,
    "unix_socket_directories": _FIXED,
    "unix_socket_permissions": _FIXED,
    "unix_socket_group": _FIXED,
    "wal_level": _FIXED,
    "wal_log_hints": f"{_FIXED} (on: a former leader is rewound)",
    "hot_standby": _PATRONI,
    "primary_conninfo": _PATRONI,
    "primary_slot_name": _PATRONI,
    "restore_command": f"{_FIXED}, with the backups",
    "archive_mode": f"{_FIXED}, with the backups",
    "archive_command": f"{_FIXED}, with the backups",
    "archive_library": f"{_FIXED}, with the backups",
    "archive_cleanup_command": f"{_FIXED}, with the backups",
    "promote_trigger_file": _PATRONI,
    "password_encryption": f"{_FIXED} (scram-sha-256)",
    "jit": f"{_FIXED} (off: no service may execute memory that it wrote)",
    "fsync": _DURABLE,
    "full_page_writes": _DURABLE,
    "synchronous_commit": _DURABLE,
    "zero_damaged_pages": _DURABLE,
    "ignore_checksum_failure": _DURABLE,
    "include": "cannot be given: name the parameters themselves",
    "include_dir": "cannot be given: name the parameters themselves",
    "include_if_exists": "cannot be given: name the parameters themselves",
}

_PREFIXES = {
    "ssl": f"{_FIXED}; use tls.epoch for new certificates",
    "recovery_": _PATRONI,
}


def reserved_because(name: str) -> str | None:
    """Return why a site file cannot set the parameter, or None when it can. Letter case does not matter."""
    low = name.lower()
    if low in _RESERVED:
        return _RESERVED[low]
    return next((why for prefix, why in _PREFIXES.items() if low.startswith(prefix)), None)
