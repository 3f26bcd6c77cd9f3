"""Volumes and ports that several instances want at once: nobody shares what cannot be shared."""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import grpc
import pytest
from virtrpc.v1 import instance_pb2, interface_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import BlockDevice, InterfaceSpec, UserModeNetwork

from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, small_spec, succeeded
from tests.refusals import refusal_of

_CALLERS, _CALLS = 8, 120
_REFUSALS = {
    *("VOLUME_IN_USE", "VOLUME_BUSY", "INSTANCE_BUSY", "VOLUME_NOT_ATTACHED"),
    *("ATTACHMENT_DIFFERS", "PORT_IN_USE", "BLOCKED"),
}


class Greedy(threading.Thread):
    """Attaches, swaps and detaches what it likes, to and from instances that it likes."""

    def __init__(
        self, connection: Connection, *, instances: Sequence[str], things: Sequence[BlockDevice],
        seed: str,
    ) -> None:  # fmt: skip
        super().__init__(name=f"greedy-{seed}")
        self.answers: Counter[str] = Counter()
        self._connection = connection
        self._instances, self._things = instances, things
        self._random = random.Random(seed)
        self._verbs = (self._attach, self._detach, self._swap, self._plug, self._unplug)

    def run(self) -> None:
        for _ in range(_CALLS):
            instance_id, thing = self._random.choice(self._instances), self._choose()
            try:
                self._random.choice(self._verbs)(instance_id, thing)
            except grpc.RpcError as error:
                self.answers[refusal_of(error).reason] += 1
            else:
                self.answers[""] += 1

    def _choose(self) -> BlockDevice:
        return self._random.choice(self._things)

    def _attach(self, instance_id: str, thing: BlockDevice) -> None:
        request = volume_pb2.AttachVolumeRequest(instance_id=instance_id, device=thing)
        self._connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)

    def _detach(self, instance_id: str, thing: BlockDevice) -> None:
        request = volume_pb2.DetachVolumeRequest(
            instance_id=instance_id, volume_id=thing.volume.volume_id
        )
        self._connection.volumes.DetachVolume(request, timeout=TIMEOUT_S)

    def _swap(self, instance_id: str, thing: BlockDevice) -> None:
        request = volume_pb2.SwapVolumeRequest(
            instance_id=instance_id,
            old_volume_id=self._choose().volume.volume_id,
            new_volume=thing.volume,
        )
        self._connection.volumes.SwapVolume(request, timeout=TIMEOUT_S)

    def _plug(self, instance_id: str, thing: BlockDevice) -> None:
        port = InterfaceSpec(port_id=thing.volume.volume_id, user=UserModeNetwork())
        request = interface_pb2.AttachInterfaceRequest(instance_id=instance_id, interface=port)
        self._connection.interfaces.AttachInterface(request, timeout=TIMEOUT_S)

    def _unplug(self, instance_id: str, thing: BlockDevice) -> None:
        request = interface_pb2.DetachInterfaceRequest(
            instance_id=instance_id, port_id=thing.volume.volume_id
        )
        self._connection.interfaces.DetachInterface(request, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def model_daemon(model_daemons: Callable[[str], DaemonProcess]) -> DaemonProcess:
    """A fake."""
    return model_daemons("fake")


def test_nobody_shares_a_volume_or_a_port(model_daemon: DaemonProcess, seed: str) -> None:
    things = [_volume(model_daemon) for _ in range(3)]
    ids = [str(uuid.uuid4()) for _ in range(3)]
    with model_daemon.connect() as connection:
        for instance_id in ids:
            _spawn(connection, instance_id)
        crowd = [
            Greedy(connection, instances=ids, things=things, seed=f"{seed}-{number}")
            for number in range(_CALLERS)
        ]
        for greedy in crowd:
            greedy.start()
        shared: list[str] = []
        while any(greedy.is_alive() for greedy in crowd):
            shared += _shared(_listed(connection))
        answers = sum((greedy.answers for greedy in crowd), Counter[str]())
        assert shared == []
        assert set(answers) <= {"", *_REFUSALS}, answers
        assert answers["VOLUME_IN_USE"] and answers[""] > len(ids)
        for instance_id in ids:
            destroyed(connection, instance_id)


def _volume(daemon: DaemonProcess) -> BlockDevice:
    device = BlockDevice()
    device.volume.volume_id = str(uuid.uuid4())
    path = daemon.sources / device.volume.volume_id
    path.write_bytes(bytes(1 << 20))
    device.volume.local_file.path = str(path)
    return device


def _spawn(connection: Connection, instance_id: str) -> None:
    request = instance_pb2.SpawnInstanceRequest(
        instance_id=instance_id, spec=small_spec(backend="fake")
    )
    succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))


def _listed(connection: Connection) -> Sequence[Instance]:
    request = instance_pb2.ListInstancesRequest(view=instance_pb2.INSTANCE_VIEW_FULL)
    return connection.instances.ListInstances(request, timeout=TIMEOUT_S).instances


def _shared(instances: Sequence[Instance]) -> list[str]:
    """Volumes, files and ports that more than one instance has."""
    users = Counter[str]()
    for instance in instances:
        disks = [disk for disk in instance.persistent.disks if disk.volume_id]
        users.update({disk.volume_id for disk in disks} | {disk.source for disk in disks})
        users.update({f"port {port.port_id}" for port in instance.persistent.interfaces})
    return [thing for thing, count in users.items() if count > 1]


def test_what_two_instances_have_is_seen() -> None:
    one, other = Instance(instance_id="one"), Instance(instance_id="other")
    for instance in (one, other):
        instance.persistent.disks.add(volume_id="v", source=f"/{instance.instance_id}")
    assert _shared([one]) == []
    assert _shared([one, other]) == ["v"]
