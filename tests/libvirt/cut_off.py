"""A machine while no daemon runs: what QEMU has, and what libvirt has written of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import EventListener, QMPClient

from backends.libvirt.status_files import read_status
from tests.daemon import DaemonProcess
from tests.instances import TIMEOUT_S

T = TypeVar("T")


def written_by_libvirt(daemon: DaemonProcess, name: str) -> list[Path]:
    """A machine as it runs, and as it is configured."""
    return [daemon.state_dir / "libvirt" / kind / "qemu" / f"{name}.xml" for kind in ("run", "etc")]


@contextmanager
def unwritten(daemon: DaemonProcess, name: str) -> Iterator[None]:
    """What QEMU is given within it has; as libvirt writes, it has not: the daemon died before."""
    paths = written_by_libvirt(daemon, name)
    written = [path.read_bytes() for path in paths]
    yield
    daemon.kill()
    for path, data in zip(paths, written, strict=True):
        path.write_bytes(data)


def at_monitor(daemon: DaemonProcess, name: str, ask: Callable[[QMPClient], Awaitable[T]]) -> T:
    """Talks to QEMU while no daemon runs."""
    noted = read_status(written_by_libvirt(daemon, name)[0])
    assert noted is not None

    async def talk(monitor: str) -> T:
        client = QMPClient(name)
        await client.connect(monitor)
        try:
            return await ask(client)
        finally:
            await client.disconnect()

    return asyncio.run(asyncio.wait_for(talk(noted.monitor), TIMEOUT_S))


async def unplug(client: QMPClient, device: str) -> None:
    """Has the guest let go of a device; what is behind it stays."""
    with client.listener("DEVICE_DELETED") as deleted:
        await client.execute("device_del", {"id": device})
        await _told(deleted, device)


async def _told(deleted: EventListener, device: str) -> None:
    async for event in deleted:
        data = event["data"]
        assert isinstance(data, dict)
        if data.get("device") == device:
            return


async def finish_job(client: QMPClient) -> str:
    """Has the only block job end well, a mirror with a turn, and not dismissed; gives its name."""
    listed: Any = await client.execute("query-jobs")
    (job,) = listed
    with client.listener("JOB_STATUS_CHANGE") as changes:
        if job["status"] == "ready":
            await client.execute("job-complete", {"id": job["id"]})
        else:
            await client.execute("block-job-set-speed", {"device": job["id"], "speed": 0})
        async for change in changes:
            data: Any = change["data"]
            if data["status"] == "concluded":
                break
    return str(job["id"])


async def had_by(client: QMPClient) -> set[str]:
    """Names of all that QEMU has that can come and go."""
    networks = await client.execute("human-monitor-command", {"command-line": "info network"})
    return {
        *await _listed(client, "qom-list", "name", path="/machine/peripheral"),
        *await _listed(client, "qom-list", "name", path="/objects"),
        *await _listed(client, "query-named-block-nodes", "node-name", flat=True),
        *await _listed(client, "query-chardev", "label"),
        *str(networks).split(),
    }


async def _listed(client: QMPClient, command: str, key: str, **arguments: object) -> list[str]:
    listed = await client.execute(command, arguments)
    assert isinstance(listed, list)
    return [item[key] for item in listed]
