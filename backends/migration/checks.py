"""What stands in the way of a migration: pure functions over what both hosts have said."""

import socket
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import Blocker, PowerState

from backends.errors import ContractError, InvalidArgumentError, NoRoomError, WrongStateError
from backends.power_states import NOT_SUSPENDED, power_blockers
from backends.shares import share_not_migrated

SHARED, COPY = pb.MIGRATION_STORAGE_SHARED, pb.MIGRATION_STORAGE_COPY
Storage = pb.MigrationStorage
# What they do is known to a device or a switch of this host alone.
# A macvtap at the destination reaches nobody (seen with libvirt 9.0, docs/decisions.md).
_BOUND = ("host_device", "vhost_user", "macvtap")
_MOVABLE = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


def state_blockers(instance: Instance) -> list[ContractError]:
    """That there is a guest to be moved."""
    return power_blockers(instance, *_MOVABLE)


def off_blockers(instance: Instance) -> list[ContractError]:
    """That an instance can be moved, or made larger, while it is off."""
    return power_blockers(instance, *NOT_SUSPENDED)


def storage_of(options: pb.LiveMigrationOptions, *, shared: bool) -> "Storage.ValueType":
    """How an instance's own files come to the destination."""
    return options.storage or (SHARED if shared else COPY)


def storage_blockers(
    options: pb.LiveMigrationOptions,
    disks: Iterable[pb.MigrationDisk],
    *,
    shared: bool,
    kind: "pb.MigrationKind.ValueType" = pb.MIGRATION_KIND_LIVE,
) -> Iterator[ContractError]:
    """That the disks can go as is asked."""
    if options.storage == SHARED and not shared:
        why = "the destination does not see the directory of this host's instances"
        yield WrongStateError(why, reason="STORAGE_NOT_SHARED", field="options.storage")
    if options.storage == COPY and shared:
        why = "both hosts see the same directory of instances: a copy would be made onto itself"
        yield WrongStateError(why, reason="STORAGE_SHARED", field="options.storage")
    runs = kind == pb.MIGRATION_KIND_LIVE
    copied = storage_of(options, shared=shared) == COPY
    if runs and copied and any(d.role == "config" for d in disks):
        why = "a config drive is not copied while its guest runs: use storage that both hosts see"
        yield WrongStateError(why, reason="CONFIG_DRIVE_NOT_COPIED")


def bound_blockers(instance: Instance) -> Iterator[ContractError]:
    """What of an instance cannot leave its host while it runs."""
    for index, interface in enumerate(instance.spec.interfaces):
        kind = interface.WhichOneof("network")
        if kind in _BOUND:
            why = f"an interface of the kind {kind} holds its guest at this host: detach it"
            field = f"spec.interfaces[{index}]"
            yield WrongStateError(why, reason="INTERFACE_NOT_MIGRATED", field=field)
    yield from rescue_blockers(instance)


def share_blockers(instance: Instance) -> Iterator[ContractError]:
    """That a guest has nothing mounted which cannot leave its host while it runs."""
    for share in instance.shares:
        yield share_not_migrated(share, "unmount it")


def rescue_blockers(instance: Instance) -> Iterator[ContractError]:
    """That an instance runs its own system."""
    if instance.rescue_image_id:
        yield WrongStateError("the instance is in rescue: UnrescueInstance first")


def room_blockers(
    disks: Iterable[pb.MigrationDisk], check: pb.DestinationCheck, *, over_commit: bool
) -> Iterator[ContractError]:
    """That what is copied fits."""
    copied = [disk for disk in disks if disk.storage == COPY]
    needed = sum(d.allocated_bytes if over_commit else d.virtual_size_bytes for d in copied)
    if needed > check.free_disk_bytes:
        why = f"the disks take {needed} bytes, {check.free_disk_bytes} are free at the destination"
        yield NoRoomError(why, field="options.disk_over_commit")


def option_blockers(
    options: pb.LiveMigrationOptions, check: pb.DestinationCheck
) -> Iterator[ContractError]:
    """That the destination can do what is asked of the transfer."""
    if options.post_copy and not check.post_copy:
        why = "the destination cannot take over by post-copy"
        yield WrongStateError(why, reason="POST_COPY_UNSUPPORTED", field="options.post_copy")
    if options.tls == pb.MIGRATION_TLS_REQUIRED and not check.tls:
        yield no_certificates("the destination")


def no_certificates(host: str) -> ContractError:
    """That a hypervisor cannot show who it is."""
    why = f"{host} has no certificates for encrypted transfer"
    return WrongStateError(why, reason="TLS_UNAVAILABLE", field="options.tls")


def memory_blockers(
    source: pb.MigrationSource, check: pb.DestinationCheck
) -> Iterator[ContractError]:
    """That the guest's memory fits."""
    needed = source.flavor.memory_mib
    if needed > check.free_memory_mib:
        why = f"the guest has {needed} MiB of memory, {check.free_memory_mib} are free"
        yield NoRoomError(why, field="source.flavor.memory_mib")


def hypervisor_blockers(
    source: pb.MigrationSource, check: pb.DestinationCheck
) -> Iterator[ContractError]:
    """That both hosts speak of the same hypervisor."""
    if source.hypervisor_type and source.hypervisor_type != check.hypervisor_type:
        why = f"{source.hypervisor_type} guests do not run on {check.hypervisor_type}"
        yield WrongStateError(why, reason="HYPERVISOR_MISMATCH", field="source.hypervisor_type")


def name_blockers(
    source: pb.MigrationSource, instance_id: str, instances: Iterable[Instance]
) -> Iterator[ContractError]:
    """That neither the instance nor its name is taken."""
    for instance in instances:
        if instance.instance_id == instance_id:
            yield instance_exists(instance_id)
        elif source.instance_name and instance.name == source.instance_name:
            why = f"the name {instance.name} is taken by instance {instance.instance_id}"
            yield WrongStateError(why, reason="NAME_TAKEN", field="source.instance_name")


def port_blockers(migration_uri: str) -> Iterator[ContractError]:
    """That memory can be received here at a port that was named."""
    split = urlsplit(migration_uri)
    if split.scheme != "tcp" or not split.port or not split.hostname:
        return
    family = socket.AF_INET6 if ":" in split.hostname else socket.AF_INET
    try:
        socket.create_server((split.hostname, split.port), family=family).close()
    except OSError as error:
        why = f"{split.netloc} cannot be listened at here: {error.strerror}"
        yield WrongStateError(why, reason="MIGRATION_PORT_TAKEN", field="migration_uri")


def cpu_blockers(compare: Callable[[], pb.CompareCpuResponse]) -> list[ContractError]:
    """That a guest's CPU can be offered here."""
    try:
        answer = compare()
    except InvalidArgumentError as error:
        return [WrongStateError(str(error), reason="CPU_INCOMPATIBLE", field="source.guest_cpu")]
    if answer.comparison != pb.CPU_COMPARISON_INCOMPATIBLE:
        return []
    lacks = ", ".join(answer.missing_features) or "its model"
    why = f"the CPU here lacks what the guest's has: {lacks}"
    return [WrongStateError(why, reason="CPU_INCOMPATIBLE", field="source.guest_cpu")]


def instance_exists(instance_id: str) -> ContractError:
    """That the instance is at the destination already, as a blocker."""
    why = f"instance {instance_id} is at the destination already, or another migration takes it"
    return WrongStateError(why, reason="INSTANCE_EXISTS", field="instance_id")


def same_host() -> ContractError:
    """That source and destination are one."""
    why = "the destination is this daemon"
    return InvalidArgumentError(why, reason="SAME_HOST", field="destination_uri")


def as_messages(errors: Iterable[ContractError]) -> list[Blocker]:
    """Blockers as an answer tells them."""
    return [
        Blocker(reason=v.reason, field=v.field, message=v.message)
        for error in errors
        for v in error.violations
    ]


def as_errors(blockers: Iterable[Blocker], *, of: str) -> list[ContractError]:
    """What another host has answered, as blockers of an operation here."""
    return [
        (NoRoomError if b.reason == NoRoomError.reason else WrongStateError)(
            f"{of}: {b.message}", reason=b.reason, field=b.field
        )
        for b in blockers
    ]
