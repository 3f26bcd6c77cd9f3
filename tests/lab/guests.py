"""A guest that counts aloud, and where it is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from virtrpc.v1 import console_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.instances import console_until, destroyed, small_spec, spawned
from tests.lab.hosts import Lab, LabHost
from tests.migrations import instance_at

TIMEOUT_S = 60.0
# So slow that 80 MiB take seconds, in which something can happen.
SLOW_MIB_PER_S = 20


def counting_spec(name: str) -> InstanceSpec:
    """A guest that prints "count N" five times a second; it has a root disk, and boots a kernel."""
    spec = small_spec(backend="libvirt", name=name)
    spec.image.image_id = "guest"
    spec.image.kernel_args += " virtrpc.counter=1"
    return spec


@contextmanager
def counting(lab: Lab, name: str) -> Iterator[str]:
    """The id of a counting guest on the first host, gone from both after."""
    with spawned(lab.hosts[0].connection, counting_spec(name)) as instance_id:
        try:
            console_until(lab.hosts[0].connection, instance_id, b"count 3")
            yield instance_id
        finally:
            destroyed(lab.hosts[1].connection, instance_id)


def location(lab: Lab, instance_id: str) -> tuple[LabHost, LabHost]:
    """The host that has the instance, and the other one, which does not."""
    here, there = lab.hosts
    if instance_at(here, instance_id) is None:
        here, there = there, here
    assert instance_at(here, instance_id) is not None
    assert instance_at(there, instance_id) is None
    return here, there


def counts(host: LabHost, instance_id: str) -> list[int]:
    """All numbers that the console has."""
    request = console_pb2.StreamConsoleOutputRequest(instance_id=instance_id, offset=0)
    stream = host.connection.consoles.StreamConsoleOutput(request, timeout=TIMEOUT_S)
    text = b"".join(response.data.data for response in stream)
    return [int(number) for number in re.findall(rb"count (\d+)\r?\n", text)]


def goes_on(host: LabHost, instance_id: str) -> None:
    """The guest counts on there, and has missed no number since it was booted."""
    so_far = counts(host, instance_id)
    console_until(host.connection, instance_id, f"count {so_far[-1] + 3}".encode())
    numbers = counts(host, instance_id)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] <= 1, "the beginning of the console log stayed behind"


def is_clean(host: LabHost, instance_id: str) -> None:
    """Nothing of the instance is on the host: neither domain, machine nor file."""
    assert instance_at(host, instance_id) is None
    assert host.libvirtd.guests == []
    assert not (host.daemon.state_dir / "instances" / instance_id).exists()
