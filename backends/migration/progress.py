"""How a transfer stands, in the contract's words, and what is due when it takes too long."""

from virtrpc.v1 import migration_pb2 as pb

from backends.migration import checks
from backends.migration.book import Migration, Phase
from backends.migration.driver import Counters

_FORCE_TIMEOUT_S = 300.0


class Policy:
    """What is due of a transfer that takes too long."""

    def __init__(self, options: pb.LiveMigrationOptions, began: float) -> None:
        timeout_s = options.timeout.ToNanoseconds() / 1e9
        self._at = began + timeout_s if timeout_s else None
        self._forces = options.timeout_action == pb.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE
        self._patience_s = _FORCE_TIMEOUT_S
        if options.HasField("force_timeout"):
            self._patience_s = options.force_timeout.ToNanoseconds() / 1e9

    def due(self, now: float, *, forced: bool) -> str:
        """ "abort", "force" or nothing."""
        if self._at is None or now < self._at:
            return ""
        if not self._forces or now >= self._at + self._patience_s:
            return "abort"
        return "" if forced else "force"


PHASE_NAMES = {
    Phase.MIGRATION_PHASE_COPYING_DISKS: "disks",
    Phase.MIGRATION_PHASE_COPYING_MEMORY: "memory",
    Phase.MIGRATION_PHASE_POST_COPY: "post-copy",
}
PERCENT = {
    Phase.MIGRATION_PHASE_COPYING_DISKS: 10,
    Phase.MIGRATION_PHASE_COPYING_MEMORY: 50,
    Phase.MIGRATION_PHASE_POST_COPY: 75,
}


def phase_of(counters: Counters, now: "Phase.ValueType") -> "Phase.ValueType":
    """The phase that a transfer is in, by what has gone over."""
    if counters.post_copy:
        return Phase.MIGRATION_PHASE_POST_COPY
    if counters.memory.processed_bytes and now == Phase.MIGRATION_PHASE_COPYING_DISKS:
        return Phase.MIGRATION_PHASE_COPYING_MEMORY
    return now


def fill(progress: pb.MigrationProgress, counters: Counters) -> None:
    """Writes counters where watchers see them."""
    progress.observed_at.GetCurrentTime()
    for name in ("memory", "disk"):
        counter: pb.MigrationCounter = getattr(counters, name)
        if counter.total_bytes:
            getattr(progress, name).CopyFrom(counter)
    progress.dirty_rate_bytes_per_s = counters.dirty_rate_bytes_per_s
    progress.transfer_rate_bytes_per_s = counters.transfer_rate_bytes_per_s
    progress.iteration = counters.iteration
    progress.throttle_percent = counters.throttle_percent
    if counters.downtime_ms is not None:
        progress.expected_downtime.FromMilliseconds(counters.downtime_ms)


def result_of(migration: Migration, counters: Counters) -> pb.LiveMigrationResult:
    """What a transfer came to."""
    memory, disk = counters.memory.processed_bytes, counters.disk.processed_bytes
    result = pb.LiveMigrationResult(
        migration_id=migration.migration_id,
        instance_id=migration.instance_id,
        destination_uri=migration.data.destination_uri,
        memory_transferred_bytes=memory,
        disk_transferred_bytes=disk,
        transferred_bytes=memory + disk,
        iterations=counters.iteration,
        post_copy=counters.post_copy or migration.post_copy,
        forced=migration.forced,
        disks_copied=any(d.storage == checks.COPY for d in migration.data.disks),
    )
    if counters.downtime_ms is not None:
        result.downtime.FromMilliseconds(counters.downtime_ms)
    return result
