"""What every backend asks of an instance that is to be adopted, in the same way."""

import uuid
from collections.abc import Iterator

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import BlockDevice, InstanceSpec, MachineSpec

from backends.errors import AlreadyExistsError, ContractError, WrongStateError
from backends.specification import same_specification

# Names that machine types go by without a version.
_MACHINE_FAMILIES = {"q35": "pc-q35-", "pc": "pc-i440fx-"}


def made_id(instance_id: str, what: str) -> str:
    """An id for something that nobody has given one: the same whenever it is asked for."""
    return str(uuid.uuid5(uuid.UUID(instance_id), what))


def already_managed(
    instance: Instance, request: pb.ImportInstanceRequest
) -> pb.ImportInstanceResponse:
    """The reply for an instance that is managed; raises AlreadyExistsError."""
    if request.HasField("spec") and not same_specification(instance.spec, request.spec):
        raise AlreadyExistsError(
            f"instance {instance.instance_id} is managed, with another specification",
            reason="SPEC_DIFFERS",
            metadata={"instance_id": instance.instance_id},
        )
    return pb.ImportInstanceResponse(instance=instance)


def contradictions(given: InstanceSpec, found: InstanceSpec) -> list[ContractError]:
    """Where a given specification says otherwise than the one read from the machine."""
    return [
        WrongStateError(why, reason="SPEC_CONTRADICTS_MACHINE", field=f"spec.{field}")
        for field, why in _differing(given, found)
    ]


def _differing(given: InstanceSpec, found: InstanceSpec) -> Iterator[tuple[str, str]]:
    if given.name and given.name != found.name:
        yield "name", f"the machine is called {found.name}"
    for name in ("vcpus", "memory_mib"):
        has = getattr(found.flavor, name)
        if getattr(given.flavor, name) != has:
            yield f"flavor.{name}", f"the machine has {has}"
    yield from _differing_machine(given.machine, found.machine)
    yield from _differing_interfaces(given, found)
    yield from _differing_disks(given, found)


def _differing_machine(given: MachineSpec, found: MachineSpec) -> Iterator[tuple[str, str]]:
    for field, value in given.ListFields():
        has = getattr(found, field.name)
        family = _MACHINE_FAMILIES.get(str(value)) if field.name == "machine_type" else None
        if value != has and not (family and has.startswith(family)):
            yield f"machine.{field.name}", f"the machine has {has or 'none'}"


def _differing_interfaces(given: InstanceSpec, found: InstanceSpec) -> Iterator[tuple[str, str]]:
    if len(given.interfaces) != len(found.interfaces):
        yield "interfaces", f"the machine has {len(found.interfaces)} that can be expressed"
        return
    for index, (one, other) in enumerate(zip(given.interfaces, found.interfaces, strict=True)):
        kind = other.WhichOneof("network") or ""
        if one.mac_address and one.mac_address != other.mac_address:
            yield f"interfaces[{index}].mac_address", f"the machine has {other.mac_address}"
        if one.WhichOneof("network") != kind:
            yield f"interfaces[{index}].{one.WhichOneof('network')}", f"it is of kind {kind}"
        elif getattr(one, kind) != getattr(other, kind):
            yield f"interfaces[{index}].{kind}", "it is connected otherwise"


def _differing_disks(given: InstanceSpec, found: InstanceSpec) -> Iterator[tuple[str, str]]:
    there = {device.device_name: device for device in found.block_devices}
    for index, device in enumerate(given.block_devices):
        name = device.device_name.removeprefix("/dev/")
        field = f"block_devices[{index}]"
        if name not in there:
            yield f"{field}.device_name", f"the machine has {', '.join(sorted(there)) or 'none'}"
        elif _source(device) != _source(there[name]):
            yield f"{field}.volume", "the disk is somewhere else"


def _source(device: BlockDevice) -> str:
    """Where a volume's bytes are, as far as a machine says it."""
    kind = device.volume.WhichOneof("source")
    return getattr(device.volume, kind).path if kind in ("local_file", "local_block") else ""
