"""libvirt's statistics as messages. Pure: keys as virConnectGetAllDomainStats documents them."""

from collections.abc import Mapping
from typing import Any

from virtrpc.v1 import diagnostics_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, AttachedInterface, Instance

Stats = Mapping[str, Any]


def add_known(instance: Instance, stats: Stats) -> pb.InstanceDiagnostics:
    """What libvirt knows without asking QEMU."""
    machine = instance.effective
    diagnostics = pb.InstanceDiagnostics(
        instance_id=instance.instance_id,
        power_state=instance.power_state,
        driver="libvirt",
        hypervisor=instance.virt_type,
        vcpus=[_vcpu(number, stats) for number in range(stats.get("vcpu.maximum", 0))],
        memory=pb.MemoryDiagnostics(
            maximum_kib=machine.max_memory_kib, current_kib=machine.memory_kib
        ),
        config_drive=any(disk.role == "config" for disk in machine.disks),
    )
    by_device = {
        stats.get(f"net.{number}.name"): number for number in range(stats.get("net.count", 0))
    }
    for interface in machine.interfaces:
        number = by_device.get(interface.host_device or None)
        diagnostics.interfaces.append(_interface(interface, number, stats))
    if instance.HasField("started_at"):
        diagnostics.counted_since.CopyFrom(instance.started_at)
    return diagnostics


def add_asked(diagnostics: pb.InstanceDiagnostics, instance: Instance, stats: Stats) -> None:
    """What QEMU was asked for: memory as the guest sees it, and disks."""
    memory = diagnostics.memory
    if "balloon.current" in stats:
        memory.current_kib = stats["balloon.current"]
    if "balloon.rss" in stats:
        memory.resident_kib = stats["balloon.rss"]
    if "balloon.available" in stats and "balloon.unused" in stats:
        memory.used_kib = stats["balloon.available"] - stats["balloon.unused"]
    by_target = {
        stats.get(f"block.{number}.name"): number for number in range(stats.get("block.count", 0))
    }
    for disk in instance.effective.disks:
        diagnostics.disks.append(_disk(disk, by_target.get(disk.device_name), stats))


def _vcpu(number: int, stats: Stats) -> pb.VcpuDiagnostics:
    vcpu = pb.VcpuDiagnostics(vcpu_id=number, time_ns=stats.get(f"vcpu.{number}.time", 0))
    if f"vcpu.{number}.delay" in stats:
        vcpu.delay_ns = stats[f"vcpu.{number}.delay"]
    return vcpu


def _interface(
    interface: AttachedInterface, number: int | None, stats: Stats
) -> pb.InterfaceDiagnostics:
    diagnostics = pb.InterfaceDiagnostics(
        port_id=interface.port_id,
        mac_address=interface.mac_address,
        host_device=interface.host_device,
    )
    if number is not None and f"net.{number}.rx.bytes" in stats:
        # libvirt counts as the guest does: what the guest receives is "rx".
        diagnostics.counters.CopyFrom(
            pb.InterfaceCounters(
                received_bytes=stats[f"net.{number}.rx.bytes"],
                received_packets=stats[f"net.{number}.rx.pkts"],
                received_errors=stats[f"net.{number}.rx.errs"],
                received_drops=stats[f"net.{number}.rx.drop"],
                sent_bytes=stats[f"net.{number}.tx.bytes"],
                sent_packets=stats[f"net.{number}.tx.pkts"],
                sent_errors=stats[f"net.{number}.tx.errs"],
                sent_drops=stats[f"net.{number}.tx.drop"],
            )
        )
    return diagnostics


def _disk(disk: AttachedDisk, number: int | None, stats: Stats) -> pb.DiskDiagnostics:
    diagnostics = pb.DiskDiagnostics(device_name=disk.device_name, volume_id=disk.volume_id)
    if number is None or f"block.{number}.rd.reqs" not in stats:
        return diagnostics
    counters = diagnostics.counters
    for field, key in (
        ("read_requests", "rd.reqs"),
        ("read_bytes", "rd.bytes"),
        ("write_requests", "wr.reqs"),
        ("write_bytes", "wr.bytes"),
        ("flush_requests", "fl.reqs"),
        ("errors", "errors"),
        ("read_time_ns", "rd.times"),
        ("write_time_ns", "wr.times"),
        ("flush_time_ns", "fl.times"),
    ):
        if f"block.{number}.{key}" in stats:
            setattr(counters, field, stats[f"block.{number}.{key}"])
    return diagnostics
