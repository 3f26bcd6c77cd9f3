"""Spawn and destroy of the test guest, in turns with the same calls of libvirt itself.

A spawn is timed from its submission to the end of its operation, so it has the
journal, the facts read back and two round trips more than bare libvirt.
"""

import uuid
from collections.abc import Sequence
from statistics import median

from virtrpc.v1 import instance_pb2 as pb

from tests.bench.bare_libvirt import BareLibvirt
from tests.bench.places import destroy, embedded_daemon, ended, guest_spec
from tests.bench.report import Row
from tests.bench.timing import timed
from tests.daemon import Connection

_ROUNDS = 7


def measure() -> Sequence[Row]:
    """Latency of both verbs."""
    with embedded_daemon() as daemon:
        folder = daemon.folder / "bare"
        folder.mkdir(mode=0o711)
        with (
            BareLibvirt(folder, images=daemon.image_dir) as bare,
            daemon.connect() as connection,
        ):
            _round(connection, bare)  # QEMU's capabilities are probed at the first start
            rounds = [_round(connection, bare) for _ in range(_ROUNDS)]
    spawn, bare_spawn, gone, bare_gone = map(median, zip(*rounds, strict=True))
    return [
        Row(what="SpawnInstance to the end of its operation", value=spawn, unit="s",
            against="bare qemu-img, defineXML, create", base=bare_spawn, at_most=1.3),
        Row(what="DestroyInstance with its disks", value=gone, unit="s",
            against="bare destroy, undefine, unlink", base=bare_gone, at_most=1.3),
    ]  # fmt: skip


def _round(connection: Connection, bare: BareLibvirt) -> tuple[float, float, float, float]:
    """Seconds of spawn and bare spawn, destroy and bare destroy."""
    instance_id = str(uuid.uuid4())
    spawned = timed(lambda: _spawn(connection, instance_id))
    destroyed = timed(lambda: destroy(connection, instance_id))
    return spawned, bare.seconds("spawn"), destroyed, bare.seconds("destroy")


def _spawn(connection: Connection, instance_id: str) -> None:
    request = pb.SpawnInstanceRequest(instance_id=instance_id, spec=guest_spec("timed"))
    ended(connection, connection.instances.SpawnInstance(request))
