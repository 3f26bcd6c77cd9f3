"""The plan of an instance as a whole."""

from collections.abc import Mapping

from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import ContractError
from backends.plan.cpus import read_cpu_layout
from backends.plan.disks import planned_disks
from backends.plan.extra_specs import read_extra_specs
from backends.plan.interfaces import interface_errors
from backends.plan.machine import read_machine
from backends.plan.needs import Need, device_needs, machine_needs, placement_needs, unmet
from backends.plan.room import Room, disk_errors, memory_errors, memory_overhead_mib

_ORDINARY_PAGES = (None, "small", "any", 4)


class InstancePlan:
    """What is to be made of a specification. Immutable once made; secrets play no part."""

    def __init__(self, instance_id: str, spec: InstanceSpec) -> None:
        self.instance_id = instance_id
        self.spec = spec
        self.config_drive = _config_drive(spec)
        """Kind of the config drive; UNSPECIFIED: none."""
        self.extra, extra_errors = read_extra_specs(spec.flavor.extra_specs)
        self.cpus, cpu_errors = read_cpu_layout(spec.flavor, self.extra)
        self.machine, machine_errors = read_machine(spec, self.extra)
        self.disks, disk_mistakes = planned_disks(spec, config_drive=bool(self.config_drive))
        self.errors: tuple[ContractError, ...] = (
            *extra_errors,
            *cpu_errors,
            *machine_errors,
            *disk_mistakes,
            *interface_errors(spec),
        )
        """What is wrong with the specification on any host."""

    def blockers(self, features: Mapping[str, str], room: Room) -> list[ContractError]:
        """Everything that stands in the way on a host of these features and this room."""
        return [
            *self.errors,
            *unmet(self.needs, features),
            *memory_errors(self.memory_mib, room),
            *disk_errors(self.disks, room),
        ]

    def disk_blockers(self, features: Mapping[str, str], room: Room) -> list[ContractError]:
        """As `blockers`, for an instance that has its memory already."""
        return [*self.errors, *unmet(self.needs, features), *disk_errors(self.disks, room)]

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the host must be able to do."""
        return (
            *machine_needs(self.spec, self.machine),
            *placement_needs(self.extra, self.cpus),
            *device_needs(self.spec, self.config_drive),
        )

    @property
    def memory_mib(self) -> int:
        """Ordinary memory that it takes; that in huge pages is not of it."""
        flavor = self.spec.flavor
        own_mib = flavor.memory_mib if self.cpus.page_size in _ORDINARY_PAGES else 0
        return own_mib + memory_overhead_mib(flavor, self.machine)


def _config_drive(spec: InstanceSpec) -> "spec_pb2.ConfigDriveType.ValueType":
    if spec.guest.config_drive == spec_pb2.CONFIG_DRIVE_TYPE_UNSPECIFIED and spec.HasField("guest"):
        return spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK
    return spec.guest.config_drive
