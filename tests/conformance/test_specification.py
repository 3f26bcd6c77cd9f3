"""What a specification may ask for, and what is said of one that cannot be carried out."""

import uuid

import grpc
import pytest
from virtrpc.v1 import host_pb2, spec_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, small_spec, spawned, with_interface
from tests.refusals import Refusal, refusal_of


def extra_spec(key: str) -> str:
    return f'spec.flavor.extra_specs["{key}"]'


def refusal(connection: Connection, spec: InstanceSpec) -> Refusal:
    """What a check of a specification says."""
    request = pb.SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec, validate_only=True)
    with pytest.raises(grpc.RpcError) as caught:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    return refusal_of(caught.value)


@pytest.mark.parametrize(
    ("extra", "field", "reason"),
    [
        ({"hw:nonsense": "1"}, "hw:nonsense", "EXTRA_SPEC_UNKNOWN"),
        ({"os:nonsense": "1"}, "os:nonsense", "EXTRA_SPEC_UNKNOWN"),
        ({"hw:cpu_policy": "sole"}, "hw:cpu_policy", "EXTRA_SPEC_INVALID"),
        ({"hw:cpu_sockets": "-1"}, "hw:cpu_sockets", "EXTRA_SPEC_INVALID"),
        ({"hw:cpu_cores": "3"}, "hw:cpu_cores", "EXTRA_SPEC_INVALID"),
        ({"hw:max_cpu_sockets": "1", "hw:max_cpu_cores": "1", "hw:max_cpu_threads": "1"},
         "hw:max_cpu_sockets", "EXTRA_SPEC_INVALID"),
        ({"hw:numa_nodes": "3"}, "hw:numa_nodes", "EXTRA_SPEC_INVALID"),
        ({"hw:numa_cpus.0": "0"}, "hw:numa_cpus.0", "EXTRA_SPEC_INVALID"),
        ({"hw:numa_nodes": "1", "hw:numa_mem.0": "7"}, "hw:numa_mem.0", "EXTRA_SPEC_INVALID"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-5000"}, "hw:numa_cpus.0",
         "EXTRA_SPEC_INVALID"),
        ({"hw:cpu_policy": "mixed"}, "hw:cpu_policy", "EXTRA_SPEC_INVALID"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0-1"}, "hw:cpu_dedicated_mask",
         "EXTRA_SPEC_INVALID"),
        ({"hw:cpu_thread_policy": "isolate"}, "hw:cpu_thread_policy", "EXTRA_SPEC_INVALID"),
        ({"hw:emulator_threads_policy": "isolate"}, "hw:emulator_threads_policy",
         "EXTRA_SPEC_INVALID"),
        ({"hw:mem_page_size": "2 pages"}, "hw:mem_page_size", "EXTRA_SPEC_INVALID"),
        ({"hw:watchdog_action": "bark"}, "hw:watchdog_action", "EXTRA_SPEC_INVALID"),
        ({"hw:tpm_model": "tpm-crb"}, "hw:tpm_model", "EXTRA_SPEC_INVALID"),
        ({"hw:tpm_model": "tpm-crb", "hw:tpm_version": "1.2"}, "hw:tpm_model",
         "EXTRA_SPEC_INVALID"),
        ({"hw:serial_port_count": "5"}, "hw:serial_port_count", "EXTRA_SPEC_INVALID"),
    ],
)  # fmt: skip
def test_extra_specs_that_cannot_be_meant_are_named(
    connection: Connection, backend: str, extra: dict[str, str], field: str, reason: str
) -> None:
    spec = small_spec(backend=backend)
    spec.flavor.vcpus = 2
    spec.flavor.extra_specs.update(extra)
    refused = refusal(connection, spec)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == reason
    assert refused.fields == [extra_spec(field)]


@pytest.mark.parametrize(
    ("key", "value", "capability"),
    [
        ("hw:mem_encryption", "true", "memory_encryption"),
        ("hw:cpu_realtime", "yes", "cpu_realtime"),
        ("hw:pmem", "LABEL", "persistent_memory"),
    ],
)
def test_extra_specs_that_nobody_carries_out_name_the_capability(
    connection: Connection, backend: str, key: str, value: str, capability: str
) -> None:
    spec = small_spec(backend=backend)
    spec.flavor.extra_specs[key] = value
    refused = refusal(connection, spec)
    assert refused.code == grpc.StatusCode.UNIMPLEMENTED
    assert refused.metadata == {"capability": capability}
    assert refused.fields == [extra_spec(key)]


def test_extra_specs_of_other_scopes_and_without_effect_are_kept(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    extra = {
        "trait:HW_CPU_X86_AVX2": "required",
        "resources:VCPU": "1",
        "hw:mem_encryption": "false",
        "hw:watchdog_action": "disabled",
        "hw:cpu_policy": "shared",
    }
    spec.flavor.extra_specs.update(extra)
    with spawned(connection, spec) as instance_id:
        got = connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
        assert got.instance.spec.flavor.extra_specs == extra


def test_all_blockers_are_told_at_once(connection: Connection, backend: str) -> None:
    spec = with_interface(small_spec(backend=backend, boot="disk"))
    spec.interfaces.append(spec.interfaces[0])
    spec.flavor.memory_mib = 16 << 20
    spec.flavor.ephemeral_disk_gib = 65536
    spec.flavor.extra_specs["hw:nonsense"] = "1"
    spec.machine.firmware = spec_pb2.FIRMWARE_TYPE_BIOS
    spec.flavor.extra_specs["os:secure_boot"] = "required"
    for name in ("vda", "/dev/sdb"):
        spec.block_devices.add(
            device_name=name, bus=spec_pb2.DISK_BUS_VIRTIO, boot_index=1, ephemeral={"size_mib": 1}
        )
    refused = refusal(connection, spec)
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.reason == "BLOCKED"
    assert refused.field_reasons == {
        "spec.flavor.memory_mib": "NO_ROOM",
        "spec.flavor.ephemeral_disk_gib": "NO_ROOM",
        extra_spec("hw:nonsense"): "EXTRA_SPEC_UNKNOWN",
        extra_spec("os:secure_boot"): "EXTRA_SPEC_INVALID",
        "spec.interfaces[1].port_id": "PORT_TAKEN",
        "spec.block_devices[0].device_name": "DEVICE_NAME_TAKEN",
        "spec.block_devices[1].device_name": "DEVICE_NAME_MISMATCH",
        "spec.block_devices[1].boot_index": "BOOT_INDEX_TAKEN",
    }


@pytest.mark.parametrize("field", ["memory_mib", "ephemeral_disk_gib"])
def test_what_does_not_fit_is_resource_exhausted(
    connection: Connection, backend: str, field: str
) -> None:
    spec = small_spec(backend=backend)
    setattr(spec.flavor, field, {"memory_mib": 16 << 20, "ephemeral_disk_gib": 65536}[field])
    refused = refusal(connection, spec)
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.reason == "NO_ROOM"
    assert refused.fields == [f"spec.flavor.{field}"]


def asked_for(feature: str, backend: str) -> tuple[InstanceSpec, str]:
    """A specification that needs a feature, and the path of the field that asks for it."""
    spec = small_spec(backend=backend)
    machine, extra = spec.machine, spec.flavor.extra_specs
    match feature:
        case "uefi":
            machine.firmware, field = spec_pb2.FIRMWARE_TYPE_UEFI, "spec.machine.firmware"
        case "secure_boot":
            machine.firmware = spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT
            field = "spec.machine.firmware"
        case "vtpm":
            machine.vtpm, field = True, "spec.machine.vtpm"
        case "watchdog":
            machine.watchdog, field = spec_pb2.WATCHDOG_ACTION_RESET, "spec.machine.watchdog"
        case "vnc":
            machine.graphics, field = spec_pb2.GRAPHICS_TYPE_VNC, "spec.machine.graphics"
        case "spice":
            machine.graphics, field = spec_pb2.GRAPHICS_TYPE_SPICE, "spec.machine.graphics"
        case "hugepages":
            extra["hw:mem_page_size"], field = "large", extra_spec("hw:mem_page_size")
        case "numa":
            extra["hw:numa_nodes"], field = "1", extra_spec("hw:numa_nodes")
        case "cpu_pinning":
            extra["hw:cpu_policy"], field = "dedicated", extra_spec("hw:cpu_policy")
        case "config_drive_openstack":
            spec.guest.config_drive = spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK
            field = "spec.guest"
        case "config_drive_nocloud":
            spec.guest.config_drive = spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD
            field = "spec.guest"
        case _:
            spec.flavor.swap_mib, field = 1, "spec.flavor.swap_mib"
    return spec, field


@pytest.mark.parametrize(
    "feature",
    ["uefi", "secure_boot", "vtpm", "watchdog", "vnc", "spice", "hugepages", "numa", "cpu_pinning",
     "config_drive_openstack", "config_drive_nocloud", "filesystem_swap"],
)  # fmt: skip
def test_a_feature_is_accepted_or_refused_as_the_capabilities_say(
    connection: Connection, backend: str, feature: str
) -> None:
    reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=TIMEOUT_S)
    capability = {found.name: found for found in reply.capabilities}[feature]
    spec, field = asked_for(feature, backend)
    if capability.supported:
        request = pb.SpawnInstanceRequest(
            instance_id=str(uuid.uuid4()), spec=spec, validate_only=True
        )
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        return
    assert (capability.reason, bool(capability.message)) == ("PROBE_FAILED", True)
    refused = refusal(connection, spec)
    if refused.reason == "BLOCKED":  # a page size that is missing is missing as room, too
        assert field in refused.fields
    else:
        assert refused.code == grpc.StatusCode.UNIMPLEMENTED
        assert refused.metadata == {"capability": feature}
