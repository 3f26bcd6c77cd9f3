"""Counters of fake guests: they grow with the time that a guest runs."""

from virtrpc.v1 import diagnostics_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import Sample

_BUSY = 100  # a vCPU is busy for 1 % of the time
_NS_PER_S = 1_000_000_000
_BLOCK_BYTES = 4096


def fake_sample(instance: Instance, *, uptime_ns: int) -> Sample:
    """Counters of a guest that has run for so long: a request and a packet a second."""
    seconds = uptime_ns // _NS_PER_S
    diagnostics = pb.InstanceDiagnostics(
        instance_id=instance.instance_id,
        power_state=instance.power_state,
        driver="fake",
        hypervisor="fake",
        counted_since=instance.started_at,
        vcpus=[
            pb.VcpuDiagnostics(vcpu_id=number, time_ns=uptime_ns // _BUSY)
            for number in range(instance.vcpus)
        ],
        memory=pb.MemoryDiagnostics(
            maximum_kib=instance.max_memory_kib,
            current_kib=instance.memory_kib,
            used_kib=instance.memory_kib // 2,
        ),
        interfaces=[
            pb.InterfaceDiagnostics(
                port_id=interface.port_id,
                mac_address=interface.mac_address,
                counters=pb.InterfaceCounters(
                    received_bytes=seconds * 64, received_packets=seconds
                ),
            )
            for interface in instance.effective.interfaces
        ],
        disks=[
            pb.DiskDiagnostics(
                device_name=disk.device_name,
                volume_id=disk.volume_id,
                counters=pb.DiskCounters(
                    read_requests=seconds, read_bytes=seconds * _BLOCK_BYTES, errors=0
                ),
            )
            for disk in instance.effective.disks
        ],
    )
    return Sample(
        instance_id=instance.instance_id,
        cpu_time_ns=uptime_ns // _BUSY * instance.vcpus,
        diagnostics=diagnostics,
    )
