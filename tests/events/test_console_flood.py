"""A console that is flooded: the daemon's memory stays, and other instances do not wait."""

import threading
import time

import psutil
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2

from tests.attached import Attached
from tests.daemon import Connection, DaemonProcess
from tests.events.controllers import TIMEOUT_S, destroy, spawn
from tests.events.test_console_stream import Console

MIB = 1 << 20
FLOOD_MIB = 256
READERS = 4


def resident(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    found: int = psutil.Process(daemon.process.pid).memory_info().rss
    return found


def flood(console: Console) -> None:
    for _ in range(FLOOD_MIB):
        console.write(b"x" * MIB)


def test_flood_grows_nothing_and_slows_nobody(to_fake: Connection, fake: DaemonProcess) -> None:
    """With a reader that keeps up, readers that read nothing, a writer and a recording."""
    quiet, flooded = spawn(to_fake), spawn(to_fake)
    console = Console(fake, flooded)
    stalled = [Attached(to_fake, flooded) for _ in range(READERS)]
    writer = Attached(to_fake, flooded, mode=pb.CONSOLE_MODE_WRITER, record=True)
    for attached in (*stalled, writer):
        attached.opened()
    writer.type(b"x")
    writer.until(b"x")
    before = resident(fake)
    flooding = threading.Thread(target=flood, args=(console,))
    flooding.start()
    slowest_s = 0.0
    while flooding.is_alive():
        writer.next()
        started = time.monotonic()
        request = instance_pb2.GetInstanceRequest(instance_id=quiet)
        to_fake.instances.GetInstance(request, timeout=TIMEOUT_S)
        slowest_s = max(slowest_s, time.monotonic() - started)
    flooding.join()
    assert slowest_s < 2
    assert resident(fake) - before < 48 * MIB
    log = console.log.path
    while log.stat().st_blocks * 512 > 4 * MIB:
        writer.next()
        console.write(b".")
    recordings = list((fake.state_dir / "recordings").iterdir())
    assert sum(path.stat().st_size for path in recordings) < 80 * MIB
    for attached in (*stalled, writer):
        attached.__exit__(None, None, None)
    for instance_id in (quiet, flooded):
        destroy(to_fake, instance_id)
