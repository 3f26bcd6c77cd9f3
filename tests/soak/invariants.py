"""What must hold whatever was called and killed."""

import re
from collections import Counter
from collections.abc import Iterator

import psutil
from virtrpc.client import Client
from virtrpc.v1.instance_pb2 import DestroyInstanceRequest, ListInstancesRequest
from virtrpc.v1.operation_pb2 import ListOperationsRequest

from tests.daemon import DaemonProcess

_UUID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
# Connections and threads of the pools come and go.
_DESCRIPTORS, _THREADS = 24, 24


def two_of_one(daemon: DaemonProcess) -> list[str]:
    """Instances that more than one QEMU runs."""
    running = Counter(_uuid_of(words) for words in _guests(daemon))
    return [f"{count} processes run {uuid}" for uuid, count in running.items() if count > 1]


def unfinished(client: Client) -> list[str]:
    """Operations that have not ended, though nobody calls any more."""
    listed = client.operations.ListOperations(ListOperationsRequest()).operations
    pending = [operation for operation in listed if not operation.done]
    return [f"{operation.verb} {operation.operation_id} has not ended" for operation in pending]


def destroy_all(client: Client) -> None:
    """Destroys every instance with its disks."""
    for instance in client.instances.ListInstances(ListInstancesRequest()).instances:
        request = DestroyInstanceRequest(instance_id=instance.instance_id, destroy_disks=True)
        client.instances.DestroyInstance(request)


def residue(daemon: DaemonProcess) -> list[str]:
    """What is left of instances when all were destroyed."""
    files = [path for path in daemon.state_dir.rglob("*") if _UUID.search(path.name)]
    return [
        *(f"a process runs {_uuid_of(words)}" for words in _guests(daemon)),
        *(f"left behind: {path}" for path in files),
    ]


class Usage:
    """What a daemon's process holds, to be compared with what it held before."""

    def __init__(self, daemon: DaemonProcess) -> None:
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        self.descriptors, self.threads = process.num_fds(), process.num_threads()

    def grown_since(self, before: "Usage") -> list[str]:
        """What has grown beyond what pools and connections explain."""
        grown = {
            "descriptors": (before.descriptors, self.descriptors, _DESCRIPTORS),
            "threads": (before.threads, self.threads, _THREADS),
        }
        return [
            f"{name} have grown from {was} to {now}"
            for name, (was, now, allowed) in grown.items()
            if now > was + allowed
        ]


def _guests(daemon: DaemonProcess) -> Iterator[list[str]]:
    """Command lines of the QEMU processes that belong to a daemon."""
    for process in psutil.process_iter(["name", "cmdline"]):
        words: list[str] = process.info["cmdline"] or []
        ours = str(daemon.state_dir) in " ".join(words)
        if ours and process.info["name"].startswith("qemu-system"):
            yield words


def _uuid_of(words: list[str]) -> str:
    return words[words.index("-uuid") + 1]
