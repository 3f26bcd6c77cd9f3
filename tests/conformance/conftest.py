"""A guest that tests share, and a look after each test at what it has left behind."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from virtrpc.v1 import console_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, console_until, small_spec, spawned, with_interface
from tests.machines import qemu_pids
from tests.migrations import Host, fakes

# The daemon's own files, and those that libvirt keeps for all guests.
_NOT_OF_INSTANCES = (
    "journal.sqlite",
    "events.sqlite",
    "consoles.sqlite",
    "host.sqlite",
    "migrations",  # what became of them
    "fake/migrations",
    "images/.records",  # when an image was last used
    "libvirt/cache",
    "libvirt/log/libvirt",
)
# Made with the first vTPM and the first image; what is in them belongs to instances and images.
_LASTING_FOLDERS = (
    "libvirt/lib/swtpm",
    "libvirt/log/swtpm",
    "libvirt/run/swtpm",
    "images/.incoming",
)
# libvirt numbers the runs of a domain, and writes a file beside the old one; each instance
# that is made under an id has a log of its own.
_CHANGING = (
    (r"/domain-\d+-", "/domain-N-"),
    (r"/(run/qemu|qemu/ram)/\d+-", r"/\1/N-"),
    (r"\.new$", ""),
    (r"/console\.[0-9a-f-]{36}\.", "/console.ID."),
)


@dataclass(frozen=True)
class Guest:
    """An instance that runs for all tests of a backend."""

    instance_id: str
    spec: InstanceSpec


@dataclass(frozen=True)
class Belongings:
    """What instances have on a host."""

    listed: frozenset[str]
    paths: frozenset[str]
    processes: frozenset[int]


def belongings(daemon: DaemonProcess, connection: Connection) -> Belongings:
    """What all instances of a daemon have now."""
    request = pb.ListInstancesRequest(include_soft_deleted=True)
    listed = connection.instances.ListInstances(request, timeout=TIMEOUT_S).instances
    return Belongings(
        listed=frozenset(instance.instance_id for instance in listed),
        paths=frozenset(_paths(daemon.state_dir)),
        processes=frozenset(qemu_pids(str(daemon.state_dir), program="qemu")),
    )


def _paths(state_dir: Path) -> Iterator[str]:
    for path in state_dir.rglob("*"):
        name = str(path.relative_to(state_dir))
        for pattern, lasting in _CHANGING:
            name = re.sub(pattern, lasting, name)
        if name not in _LASTING_FOLDERS and not name.startswith(_NOT_OF_INSTANCES):
            yield name


@pytest.fixture(scope="session")
def guest(daemon: DaemonProcess, backend: str) -> Iterator[Guest]:
    """A running guest; whoever changes it asks for `running_guest`."""
    spec = with_interface(small_spec(backend=backend, name="shared-guest"))
    spec.labels["role"] = "shared"
    spec.labels["tier"] = "a/b c"
    spec.metadata["quotes"] = '"it\'s" <&> ]]> é'
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        yield Guest(instance_id, spec)


@pytest.fixture
def running_guest(guest: Guest, connection: Connection) -> Iterator[Guest]:
    """The shared guest, which the test may pause, switch off and restart."""
    _make_run(connection, guest.instance_id)
    yield guest
    _make_run(connection, guest.instance_id)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test when the shared daemon has more on its host after it than before."""
    if "daemon" not in request.fixturenames:
        yield
        return
    daemon: DaemonProcess = request.getfixturevalue("daemon")
    # Made now: what libvirt makes for its first guest is not the test's.
    request.getfixturevalue("guest")
    with daemon.connect() as connection:
        before = belongings(daemon, connection)
    yield
    with daemon.connect() as connection:
        after = belongings(daemon, connection)
    assert after.listed == before.listed
    assert after.paths - before.paths == set()
    assert len(after.processes) == len(before.processes)


def state_of(connection: Connection, instance_id: str) -> Instance:
    """The instance as the hypervisor itself tells it."""
    request = pb.GetInstanceRequest(instance_id=instance_id, fresh=True)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance


def console_end(connection: Connection, instance_id: str) -> int:
    """Where the guest's console log ends now."""
    request = console_pb2.GetConsoleOutputRequest(instance_id=instance_id, tail_bytes=0)
    return connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S).end_offset


def boot_anew(connection: Connection, instance_id: str) -> None:
    """Starts the guest anew and waits until it is ready to be asked for something."""
    off = pb.PowerOffInstanceRequest(instance_id=instance_id)
    off.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    end = console_end(connection, instance_id)
    power_on = pb.PowerOnInstanceRequest(instance_id=instance_id)
    connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S)
    console_until(connection, instance_id, b"virtrpc guest ready", offset=end)


def _make_run(connection: Connection, instance_id: str) -> None:
    state = state_of(connection, instance_id).power_state
    if state == types_pb2.POWER_STATE_PAUSED:
        unpause = pb.UnpauseInstanceRequest(instance_id=instance_id)
        connection.instances.UnpauseInstance(unpause, timeout=TIMEOUT_S)
    elif state != types_pb2.POWER_STATE_RUNNING:
        power_on = pb.PowerOnInstanceRequest(instance_id=instance_id)
        connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def hosts(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[tuple[Host, Host]]:
    """Two fakes, to migrate between."""
    with fakes(short_folder, guest_images) as pair:
        yield pair
