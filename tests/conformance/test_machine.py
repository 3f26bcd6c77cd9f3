"""Firmware, TPM, screens, CPUs: machines that real QEMU has to start."""

import os
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import parse
from tests.daemon import Connection, DaemonProcess
from tests.instances import destroyed, small_spec, spawned
from tests.refusals import refused

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)


def qemu_pid(daemon: DaemonProcess, spec: InstanceSpec) -> int:
    """Process of an instance's QEMU."""
    return int((daemon.state_dir / f"libvirt/run/qemu/{spec.name}.pid").read_text())


def command_line(daemon: DaemonProcess, spec: InstanceSpec) -> str:
    """How QEMU was called."""
    return (
        Path(f"/proc/{qemu_pid(daemon, spec)}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    )


def running_domain(daemon: DaemonProcess, spec: InstanceSpec) -> Domain:
    """The domain as libvirt keeps it while it runs."""
    status = parse((daemon.state_dir / f"libvirt/run/qemu/{spec.name}.xml").read_text())
    domain = status.find("domain")
    assert domain is not None
    return Domain.from_xml(domain)


def assert_running(connection: Connection, instance_id: str) -> None:
    request = pb.GetInstanceRequest(instance_id=instance_id, fresh=True)
    state = connection.instances.GetInstance(request).instance.power_state
    assert state == PowerState.POWER_STATE_RUNNING


@pytest.mark.parametrize(
    ("firmware", "file"),
    [
        (spec_pb2.FIRMWARE_TYPE_UEFI, "OVMF_CODE"),
        (spec_pb2.FIRMWARE_TYPE_UEFI_SECURE_BOOT, ".ms.fd"),
    ],
)
def test_uefi_guest_starts_and_its_variables_go_with_it(
    connection: Connection,
    daemon: DaemonProcess,
    backend: str,
    firmware: "spec_pb2.FirmwareType.ValueType",
    file: str,
) -> None:
    spec = small_spec(backend=backend, boot="disk")
    spec.machine.firmware = firmware
    with spawned(connection, spec) as instance_id:
        assert_running(connection, instance_id)
        assert file in command_line(daemon, spec)
        variables = daemon.state_dir / "instances" / instance_id / "nvram.fd"
        assert variables.stat().st_size > 0
    destroyed(connection, instance_id)
    assert not variables.exists()


def test_guest_with_a_tpm_starts_and_its_state_goes_with_it(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.machine.vtpm = True
    states = daemon.state_dir / "libvirt/lib/swtpm"
    with spawned(connection, spec) as instance_id:
        assert_running(connection, instance_id)
        assert "tpm-crb" in command_line(daemon, spec)
        assert (states / instance_id / "tpm2").is_dir()
    destroyed(connection, instance_id)
    assert not (states / instance_id).exists()
    assert not list((daemon.state_dir / "libvirt/log").rglob(f"*{spec.name}*"))


@pytest.mark.parametrize("graphics", ["VNC", "SPICE"])
def test_a_screen_has_a_socket_and_no_address(
    connection: Connection, daemon: DaemonProcess, backend: str, graphics: str
) -> None:
    spec = small_spec(backend=backend)
    spec.machine.graphics = spec_pb2.GraphicsType.Value(f"GRAPHICS_TYPE_{graphics}")
    with spawned(connection, spec):
        (screen,) = running_domain(daemon, spec).graphics
        assert (screen.type, screen.listen) == (graphics.lower(), "socket")
        assert screen.socket is not None
        assert Path(screen.socket).is_socket()
        inodes = _sockets_of(qemu_pid(daemon, spec))
        for table in ("tcp", "tcp6"):
            listening = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            assert not inodes & {line.split()[9] for line in listening}


def _sockets_of(pid: int) -> set[str]:
    targets = (str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def test_watchdog_rng_and_serial_ports_are_there(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.machine.watchdog = spec_pb2.WATCHDOG_ACTION_PAUSE
    spec.flavor.extra_specs["hw_rng:allowed"] = "true"
    spec.flavor.extra_specs["hw:serial_port_count"] = "2"
    with spawned(connection, spec):
        domain = running_domain(daemon, spec)
        assert domain.watchdogs[0].action == "pause"
        assert domain.rng is not None
        assert len(domain.serials) == 2


def test_topology_and_numa_cell_are_the_guests(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.flavor.vcpus = 4
    spec.flavor.extra_specs.update({"hw:cpu_sockets": "1", "hw:cpu_cores": "2",
                                    "hw:numa_nodes": "1"})  # fmt: skip
    with spawned(connection, spec):
        domain = running_domain(daemon, spec)
        assert (domain.sockets, domain.cores, domain.threads) == (1, 2, 2)
        assert [cell.cpus for cell in domain.numa_cells] == ["0-3"]
        assert "sockets=1" in command_line(daemon, spec)


def test_pinned_cpus_are_nobody_elses(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    one, other = small_spec(backend=backend), small_spec(backend=backend)
    for spec in (one, other):
        spec.flavor.extra_specs["hw:cpu_policy"] = "dedicated"
    with spawned(connection, one), spawned(connection, other):
        pins = [running_domain(daemon, spec).vcpu_pins[0].cpus for spec in (one, other)]
        assert pins[0] != pins[1]
        assert {int(pins[0] or -1)} in _affinities(qemu_pid(daemon, one))
        greedy = small_spec(backend=backend)
        greedy.flavor.vcpus = (os.cpu_count() or 1) - 1
        greedy.flavor.extra_specs["hw:cpu_policy"] = "dedicated"
        request = pb.SpawnInstanceRequest(
            instance_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8", spec=greedy, validate_only=True
        )
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM") as refusal:
            connection.instances.SpawnInstance(request)
        assert refusal.fields == ['spec.flavor.extra_specs["hw:cpu_policy"]']


def _affinities(pid: int) -> list[set[int]]:
    """CPUs that each thread of a process may run on."""
    return [
        os.sched_getaffinity(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()
    ]


@pytest.mark.parametrize(
    ("name", "value", "capability"),
    [
        ("machine_type", "pc-none-1.0", "machine_type"),
        ("cpu_model", "Abacus", "cpu_model"),
        ("cpu_model", "host-passthrough", "cpu_model"),
    ],
)
def test_what_qemu_here_does_not_have_is_refused(
    connection: Connection, backend: str, name: str, value: str, capability: str
) -> None:
    spec = small_spec(backend=backend)
    setattr(spec.machine, name, value)
    request = pb.SpawnInstanceRequest(
        instance_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8", spec=spec, validate_only=True
    )
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        connection.instances.SpawnInstance(request)
    assert refusal.metadata == {"capability": capability}
    assert refusal.fields == [f"spec.machine.{name}"]
