"""The life of an instance, as far as it can be seen."""

from dataclasses import replace

from virtrpc.v1.instance_pb2 import Instance, MachineState

from tests.model.life import PAUSED, RUNNING, Life


def observable(life: Life | None) -> Life | None:
    """What of a life can be seen on its instance."""
    if life is None:
        return None
    return replace(life, resize="stopped" if life.resize == "stopped" else "", kept_large=False)


def life_of(instance: Instance) -> Life:
    """The life of an instance as it is told."""
    sources = [disk.source for disk in instance.persistent.disks if disk.volume_id]
    files = sources[0].rsplit("/", 1)[1].split(".")[1:] if sources else []
    volume = ("new" if "new" in files else "old") if sources else ""
    return Life(
        state=instance.power_state,
        bootable=instance.bootable,
        hidden=instance.HasField("reclaim_at"),
        volume=volume,
        cut=instance.instance_id in files,
        port=bool(instance.persistent.interfaces),
        rescued=instance.rescued,
        resize="stopped" if instance.pending_migration_id else "",
        large=instance.vcpus > 1,
    )


def is_whole(instance: Instance) -> bool:
    """Whether what runs has what it will start with, and what is off has nothing that runs."""
    runs = instance.power_state in (RUNNING, PAUSED)
    if not runs or not instance.HasField("effective"):
        return runs == instance.HasField("effective")
    return _devices(instance.effective) == _devices(instance.persistent)


def _devices(machine: MachineState) -> tuple[set[str], set[str]]:
    return (
        {disk.source for disk in machine.disks if disk.volume_id},
        {interface.port_id for interface in machine.interfaces},
    )
