"""GetInstance, by one client in turns with a bare reply of the same size."""

from collections.abc import Sequence

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import InstanceView

from tests.bench.bare_grpc import BareGrpc
from tests.bench.places import fake_daemon, fake_spec, spawn
from tests.bench.report import Row
from tests.bench.timing import medians
from tests.daemon import Connection

_VIEWS = {
    "BASIC": InstanceView.INSTANCE_VIEW_BASIC,
    "FULL": InstanceView.INSTANCE_VIEW_FULL,
}
_ROUNDS, _REPEATS = 25, 100


def measure() -> Sequence[Row]:
    """Latency of GetInstance in both views."""
    with (
        fake_daemon() as daemon,
        BareGrpc(daemon.folder) as bare,
        daemon.connect() as connection,
    ):
        instance_id = spawn(connection, fake_spec("bench"))
        return [_view(connection, bare, instance_id, name) for name in _VIEWS]


def _view(connection: Connection, bare: BareGrpc, instance_id: str, name: str) -> Row:
    request = pb.GetInstanceRequest(instance_id=instance_id, view=_VIEWS[name])
    size = connection.instances.GetInstance(request).ByteSize()
    found = medians(
        {
            "get": lambda: connection.instances.GetInstance(request),
            "bare": lambda: bare.reply(size),
        },
        rounds=_ROUNDS,
        repeats=_REPEATS,
    )
    return Row(
        what=f"GetInstance {name}",
        value=found["get"],
        unit="s",
        against=f"bare grpc.aio reply of {size} bytes",
        base=found["bare"],
        at_most=1.5,
    )
