"""Which PostgreSQL parameters take effect only when PostgreSQL restarts.

From ``pg_settings`` (context ``postmaster``) of PostgreSQL 15 to 17. A name of an extension cannot be known here:
after a change ``patroni-converge`` also reads what each node waits for.
"""

from __future__ import annotations

NEED_RESTART = frozenset(
    """
    archive_mode autovacuum_freeze_max_age autovacuum_max_workers autovacuum_multixact_freeze_max_age bonjour
    bonjour_name cluster_name commit_timestamp_buffers config_file data_directory data_sync_retry
    debug_io_direct dynamic_shared_memory_type event_source external_pid_file hba_file hot_standby huge_page_size
    huge_pages ident_file ignore_invalid_pages jit_provider listen_addresses logging_collector
    max_connections max_files_per_process max_locks_per_transaction max_logical_replication_workers
    max_notify_queue_pages max_pred_locks_per_transaction max_prepared_transactions max_replication_slots
    max_wal_senders
    max_worker_processes min_dynamic_shared_memory multixact_member_buffers multixact_offset_buffers notify_buffers
    old_snapshot_threshold port reserved_connections serializable_buffers shared_buffers shared_memory_type
    shared_preload_libraries subtransaction_buffers superuser_reserved_connections
    track_activity_query_size track_commit_timestamp transaction_buffers unix_socket_directories unix_socket_group
    unix_socket_permissions wal_buffers wal_decode_buffer_size wal_level wal_log_hints
    """.split()  # noqa: SIM905 - one name a line would be sixty lines
)

HOT_STANDBY_LIMITS = frozenset(
    [
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_wal_senders",
        "max_worker_processes",
    ]
)
"""A standby does not run with less of these than its leader does; Patroni keeps the leader's value there."""

PATRONI_DEFAULTS = {
    "max_connections": "100",
    "max_locks_per_transaction": "64",
    "max_prepared_transactions": "0",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_worker_processes": "8",
    "track_commit_timestamp": "off",
    "wal_level": "replica",
    "wal_log_hints": "on",
}
"""What Patroni gives PostgreSQL when the dynamic configuration does not name the parameter."""


def needs_restart(name: str, live: object, wanted: object) -> bool:
    """Say whether this change (None = not named) waits for a restart. Units are not compared: 1GB is not 1024MB."""
    known = name.lower()
    default = PATRONI_DEFAULTS.get(known)
    before = default if live is None else str(live)
    after = default if wanted is None else str(wanted)
    return known in NEED_RESTART and before != after


def is_lowered_limit(name: str, reason: object) -> bool:
    """Say whether Patroni's reason for a restart is a hot-standby limit that goes down: the leader must go first."""
    if name not in HOT_STANDBY_LIMITS or not isinstance(reason, dict):
        return False
    try:
        return int(reason["new_value"]) < int(reason["old_value"])
    except (KeyError, TypeError, ValueError):
        return False
