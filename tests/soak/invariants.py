"""What must hold whatever was called and killed."""

import re
from collections import Counter
from collections.abc import Iterator

import psutil
from virtrpc.client import Client
from virtrpc.v1.image_pb2 import DeleteImageRequest, ListImagesRequest
from virtrpc.v1.instance_pb2 import (
    INSTANCE_VIEW_FULL,
    DestroyInstanceRequest,
    ListInstancesRequest,
)
from virtrpc.v1.operation_pb2 import ListOperationsRequest, Operation

from tests.daemon import DaemonProcess
from tests.model.observed import life_of, observable
from tests.model.replay import Replay

CANARY = "canary-5c1e70d2"
"""A secret; nothing that anybody can read may have it."""
_UUID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_ENTRY = re.compile(r"\n(?=\d{4}-\d\d-\d\dT)")
_MOST_OF_A_TRACE = 4000
# Connections and threads of the pools come and go.
_DESCRIPTORS, _THREADS = 24, 24
_MEMORY_MIB = 96


def defects(daemon: DaemonProcess) -> list[str]:
    """What the daemon itself took for a defect, with its trace, as its log tells them."""
    entries = _ENTRY.split(daemon.log())
    return [entry[:_MOST_OF_A_TRACE] for entry in entries if "defect" in entry.partition("\n")[0]]


def two_of_one(daemon: DaemonProcess) -> list[str]:
    """Instances that more than one QEMU runs."""
    running = Counter(_uuid_of(words) for words in _guests(daemon))
    return [f"{count} processes run {uuid}" for uuid, count in running.items() if count > 1]


def unfinished(client: Client) -> list[str]:
    """Operations that have not ended, though nobody calls any more."""
    pending = [operation for operation in _operations(client) if not operation.done]
    return [f"{operation.verb} {operation.operation_id} has not ended" for operation in pending]


def unlike_its_operations(client: Client) -> list[str]:
    """Instances that are not what the outcomes of their operations make of them."""
    replay = Replay(_operations(client))
    request = ListInstancesRequest(include_soft_deleted=True, view=INSTANCE_VIEW_FULL)
    request.page.page_size = 1000
    listed = {
        instance.instance_id: life_of(instance)
        for instance in client.instances.ListInstances(request).instances
    }
    return replay.faults + [
        f"{instance_id} is {listed.get(instance_id)}, and by its operations {set(lives)}"
        for instance_id, lives in replay.lives.items()
        if listed.get(instance_id) not in {observable(life) for life in lives}
    ]


def destroy_all(client: Client) -> None:
    """Destroys every instance with its disks."""
    request = ListInstancesRequest(include_soft_deleted=True)
    for instance in client.instances.ListInstances(request).instances:
        destroy = DestroyInstanceRequest(instance_id=instance.instance_id, destroy_disks=True)
        client.instances.DestroyInstance(destroy)


def delete_snapshots(client: Client) -> None:
    """Deletes the images that were made of instances: they outlive them."""
    for image in client.images.ListImages(ListImagesRequest()).images:
        if _UUID.search(image.image_id):
            client.images.DeleteImage(DeleteImageRequest(image_id=image.image_id))


def residue(daemon: DaemonProcess) -> list[str]:
    """What is left of instances when all were destroyed."""
    files = [
        path
        for path in daemon.state_dir.rglob("*")
        # What is remembered of migrations, as long as operations are, is called by their ids.
        if _UUID.search(path.name) and path.parent.name != "migrations"
    ]
    return [
        *(f"a process runs {_uuid_of(words)}" for words in _guests(daemon)),
        *(f"left behind: {path}" for path in files),
    ]


def told_secrets(daemon: DaemonProcess) -> list[str]:
    """Files of the daemon and command lines of anyone with the canary in them."""
    files = [
        f"the secret is in {path}"
        for path in daemon.folder.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    processes = [
        f"the secret is on the command line of {process.pid}"
        for process in psutil.process_iter(["cmdline"])
        if any(CANARY in word for word in process.info["cmdline"] or ())
    ]
    return files + processes


class Usage:
    """What a daemon's process holds, to be compared with what it held before."""

    def __init__(self, daemon: DaemonProcess) -> None:
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        self.descriptors, self.threads = process.num_fds(), process.num_threads()
        self.memory_mib = process.memory_info().rss >> 20

    def grown_since(self, before: "Usage") -> list[str]:
        """What has grown beyond what pools and connections explain."""
        grown = {
            "descriptors": (before.descriptors, self.descriptors, _DESCRIPTORS),
            "threads": (before.threads, self.threads, _THREADS),
            "memory in MiB": (before.memory_mib, self.memory_mib, _MEMORY_MIB),
        }
        return [
            f"{name} have grown from {was} to {now}"
            for name, (was, now, allowed) in grown.items()
            if now > was + allowed
        ]


def _operations(client: Client) -> list[Operation]:
    """All that the daemon remembers."""
    found: list[Operation] = []
    request = ListOperationsRequest()
    request.page.page_size = 1000
    while True:
        reply = client.operations.ListOperations(request)
        found += reply.operations
        if not reply.next_page_token:
            return found
        request.page.page_token = reply.next_page_token


def _guests(daemon: DaemonProcess) -> Iterator[list[str]]:
    """Command lines of the QEMU processes that belong to a daemon."""
    for process in psutil.process_iter(["name", "cmdline"]):
        words: list[str] = process.info["cmdline"] or []
        ours = str(daemon.state_dir) in " ".join(words)
        if ours and process.info["name"].startswith("qemu-system"):
            yield words


def _uuid_of(words: list[str]) -> str:
    return words[words.index("-uuid") + 1]
