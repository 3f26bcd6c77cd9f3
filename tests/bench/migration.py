"""Live migration between two hosts, in turns with `virsh migrate` of the same guest.

The guest is small and idle, so that what the daemons add weighs most. Both move it peer to
peer over storage that the hosts share; each goes in both directions.
"""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from virtrpc.v1.migration_pb2 import LiveMigrateInstanceRequest, LiveMigrationResult

from tests.bench.places import destroy, ended, guest_spec, spawn, workspace
from tests.bench.report import Row
from tests.bench.timing import timed
from tests.lab.hosts import Lab, LabHost, lab

_ROUNDS = 12
_DOWNTIME = re.compile(r"^Total downtime:\s+(\d+)\s+ms", re.MULTILINE)


def measure() -> Sequence[Row]:
    """Total time as its caller sees it, and downtime as the hypervisor has measured it."""
    with workspace() as folder, lab(_folders(folder), shared=True) as hosts, _guest(hosts) as guest:
        _round(hosts, guest)
        rounds = [_round(hosts, guest) for _ in range(_ROUNDS)]
    times = {way: [r[way][0] for r in rounds] for way in ("ours", "virsh")}
    stops = {way: [r[way][1] for r in rounds] for way in ("ours", "virsh")}
    return [
        Row(what="LiveMigrateInstance to the end of its operation", value=median(times["ours"]),
            unit="s", against="virsh migrate", base=median(times["virsh"]), at_most=1.3),
        Row(what="downtime of the guest", value=median(stops["ours"]),
            unit="s", against="virsh migrate", base=median(stops["virsh"]), at_most=1.2),
    ]  # fmt: skip


def _round(hosts: Lab, guest: str) -> dict[str, tuple[float, float]]:
    """Seconds and downtime of either way, there and back with each; the middle of both."""
    one, other = hosts.hosts
    found = {}
    for name, move in (("ours", _ours), ("virsh", _virsh)):
        there, back = move(one, other, guest), move(other, one, guest)
        found[name] = ((there[0] + back[0]) / 2, (there[1] + back[1]) / 2)
    return found


def _ours(source: LabHost, destination: LabHost, guest: str) -> tuple[float, float]:
    request = LiveMigrateInstanceRequest(instance_id=guest, destination_uri=destination.uri)
    result = LiveMigrationResult()

    def move() -> None:
        operation = source.connection.migrations.LiveMigrateInstance(request)
        ended(source.connection, operation).result.Unpack(result)

    return timed(move), result.downtime.ToNanoseconds() / 1e9


def _virsh(source: LabHost, destination: LabHost, guest: str) -> tuple[float, float]:
    options = ("--live", "--p2p", "--persistent", "--undefinesource", "--unsafe")
    uris = (f"qemu+tcp://{destination.address}/system", "--migrateuri")
    seconds = timed(
        lambda: _run(source, "migrate", *options, guest, *uris, f"tcp://{destination.address}")
    )
    found = _DOWNTIME.search(_run(destination, "domjobinfo", "--completed", guest))
    assert found is not None
    return seconds, int(found[1]) / 1e3


def _run(host: LabHost, *arguments: str) -> str:
    command = [*host.libvirtd.inside, "virsh", "--quiet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def _guest(hosts: Lab) -> Iterator[str]:
    guest = spawn(hosts.hosts[0].connection, guest_spec("moved"))
    try:
        yield guest
    finally:
        for host in hosts.hosts:
            destroy(host.connection, guest)


def _folders(folder: Path) -> Callable[[], Path]:
    """Makes folders that QEMU may pass through."""

    def make() -> Path:
        made = folder / uuid.uuid4().hex[:6]
        made.mkdir(mode=0o711)
        return made

    return make
