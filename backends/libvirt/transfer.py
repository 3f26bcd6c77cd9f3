"""The moving of one guest by libvirt: flags and parameters in, counters out.

Peer-to-peer: the source's libvirtd does it all and goes on when this daemon dies. The
destination keeps the domain, the source forgets it, both by libvirt itself and at the
switch: there is no moment at which the source could be started again.

libvirt leaves the guest standing still at the destination (VIR_MIGRATE_PAUSED): where the
answer to "finish" is lost, its source lets its own guest go on, whatever the other side has
done. Post-copy, where the guest must run at the destination, excludes that.

Source: libvirt's virDomainMigrateToURI3 and its VIR_DOMAIN_JOB_* statistics;
qemuMigrationSrcPerformPeer2Peer3 in its qemu_migration.c.
"""

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import libvirt
from virtrpc.v1 import migration_pb2 as pb

from backends.errors import ContractError, MigrationFailedError
from backends.libvirt.blueprint.destination import destination_xml
from backends.libvirt.domains import Domains
from backends.libvirt.errors import is_lost
from backends.libvirt.machines import telling_the_end
from backends.migration.checks import COPY
from backends.migration.driver import Counters, Transfer

_ALWAYS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    # libvirt tells shared filesystems by their type; these were tested with a file.
    | libvirt.VIR_MIGRATE_UNSAFE
)
_WHOLE, _OVERLAYS = libvirt.VIR_MIGRATE_NON_SHARED_DISK, libvirt.VIR_MIGRATE_NON_SHARED_INC
_STATS_S = 5.0
_DEFAULT_DOWNTIME_MS = 300
_IN_POST_COPY = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY)
_NOT_RUNNING = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


def move(
    domains: Domains, domain: libvirt.virDomain, transfer: Transfer, *, more_flags: int = 0
) -> Counters:
    """Moves a guest; returns when it runs at the destination and is gone here."""
    instance_id = transfer.migration.instance_id
    options = transfer.options
    domains.jobs.expect(instance_id)
    try:
        if not more_flags & libvirt.VIR_MIGRATE_POSTCOPY_RESUME:
            downtime_ms = options.max_downtime.ToMilliseconds() or _DEFAULT_DOWNTIME_MS
            domain.migrateSetMaxDowntime(downtime_ms)
        with telling_the_end(domains.machine_of(domain), transfer.left):
            domain.migrateToURI3(
                transfer.hypervisor_uri,
                _parameters(domain, transfer),
                _flags(transfer) | more_flags,
            )
    except libvirt.libvirtError as error:
        domains.jobs.take(instance_id, timeout_s=0)
        raise _failed(domains, error) from error
    return counters_of(domains.jobs.take(instance_id, timeout_s=_STATS_S))


def running_counters(domain: libvirt.virDomain) -> Counters | None:
    """How a domain's transfer stands; None where none runs. Raises libvirt.libvirtError."""
    try:
        stats = domain.jobStats()
        state, reason = domain.state()  # a domain that moves may be gone after any call
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NOT_RUNNING:
            return None
        raise
    outgoing = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    running = stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE
    if not (outgoing and running):
        return None
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED:
        return None  # libvirt keeps the job until somebody mends it
    counters = counters_of(stats)
    counters.post_copy = (state, reason) == _IN_POST_COPY
    return counters


def abort(domain: libvirt.virDomain) -> None:
    """Stops the transfer; nothing where none can be stopped. Raises libvirt.libvirtError."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.abortJob()


def counters_of(stats: Mapping[str, Any]) -> Counters:
    """libvirt's statistics of a job, running or ended."""
    return Counters(
        memory=_counter(stats, "memory"),
        disk=_counter(stats, "disk"),
        dirty_rate_bytes_per_s=stats.get("memory_dirty_rate", 0) * stats.get("memory_page_size", 0),
        transfer_rate_bytes_per_s=stats.get("memory_bps", 0) + stats.get("disk_bps", 0),
        iteration=stats.get("memory_iteration", 0),
        downtime_ms=stats.get("downtime"),
        throttle_percent=stats.get("auto_converge_throttle", 0),
    )


def _counter(stats: Mapping[str, Any], of: str) -> pb.MigrationCounter:
    return pb.MigrationCounter(
        total_bytes=stats.get(f"{of}_total", 0),
        processed_bytes=stats.get(f"{of}_processed", 0),
        remaining_bytes=stats.get(f"{of}_remaining", 0),
    )


def _flags(transfer: Transfer) -> int:
    options, disks = transfer.options, _copied(transfer.data)
    flags: int = _ALWAYS
    if disks:
        whole = lacks_base(transfer.data)
        flags |= _WHOLE if whole else _OVERLAYS
    if options.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    flags |= libvirt.VIR_MIGRATE_POSTCOPY if options.post_copy else libvirt.VIR_MIGRATE_PAUSED
    if options.parallel_connections > 1:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
    if options.tls == pb.MIGRATION_TLS_REQUIRED:
        flags |= libvirt.VIR_MIGRATE_TLS
    return flags


def _parameters(domain: libvirt.virDomain, transfer: Transfer) -> dict[str, Any]:
    options, data = transfer.options, transfer.data
    live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
    kept = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: destination_xml(live, data),
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: destination_xml(kept, data),
    }
    if transfer.migration_uri:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = transfer.migration_uri
        host = urlsplit(transfer.migration_uri).hostname
        if host:
            parameters[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = host
    disks = _copied(data)
    if disks:
        names = [disk.device_name for disk in disks]
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = names
    if options.bandwidth_mib_per_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = options.bandwidth_mib_per_s
    if options.parallel_connections > 1:
        connections = options.parallel_connections
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = connections
    return parameters


def lacks_base(data: pb.MigrationData) -> bool:
    """Whether an overlay has to go over with what it is based on."""
    bases = {disk.base_image_id for disk in _copied(data) if disk.base_image_id}
    return not bases <= set(data.destination.base_image_ids)


def _copied(data: pb.MigrationData) -> list[pb.MigrationDisk]:
    return [disk for disk in data.disks if disk.storage == COPY and not disk.read_only]


def _failed(domains: Domains, error: libvirt.libvirtError) -> ContractError:
    """A lost connection says nothing of the transfer, which may go on; any other error does.

    The loss may also be that of the other libvirtd: then the source is asked and answers.
    """
    if is_lost(error):
        return domains.failed(error)
    return MigrationFailedError(f"the transfer broke: {error.get_error_message()}")
