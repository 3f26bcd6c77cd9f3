"""A guest writes to disks of every bus while all that can be done to volumes is done to them, and
the daemon is killed now and then: its machine goes on, and what it wrote is where it should be.
"""

import base64
import hashlib
import random
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2, operation_pb2, spec_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import BlockDevice, DiskFormat

from tests.conformance.volume.conftest import MIB, VolumeGuest, file_volume
from tests.daemon import DaemonProcess
from tests.guest_shell import GuestCommandError
from tests.images import place_generic_kernel
from tests.instances import TIMEOUT_S, console_until, destroyed, finished, small_spec, succeeded
from tests.machines import qemu_pids
from tests.soak.invariants import residue, two_of_one

BUSES = ("VIRTIO", "SCSI", "SATA", "USB")
_STEPS, _KILL_EVERY, _KILL_WITHIN_S = 40, 2, 0.4
_MEMORY_MIB = 128
_READY = b"virtrpc guest ready"
_COMMIT, _PULL = volume_pb2.SNAPSHOT_MERGE_COMMIT, volume_pb2.SNAPSHOT_MERGE_PULL
# A number, over and over, a sector at a time and one eighth of the disk after the other, past the
# guest's cache: there is always a request under way. By a node of its own, as dd makes a file of
# one in /dev that has gone.
_WRITER = """\
cd /run
i=0
while [ -e $1 ]; do
  i=$((i+1)); rm -f $1.node; yes $i | head -c 65536 >$1.next
  number=$(cat /sys/block/$1/dev) && mknod $1.node b ${number%:*} ${number#*:} &&
    dd if=$1.next of=$1.node bs=512 seek=$((i%64*128)) oflag=direct conv=notrunc &&
    echo $i >$1.written || usleep 100000
done >/dev/null 2>&1
"""


class BrokenError(Exception):
    """What was wrong first."""


def run(daemon: DaemonProcess, *, seconds: float, seed: str) -> list[str]:
    """Everything that was wrong."""
    place_generic_kernel(daemon.image_dir)
    busy = Busy(daemon, random.Random(seed))
    ends_at, rounds, faults = time.monotonic() + seconds, 0, list[str]()
    try:
        busy.begin()
        while not rounds or time.monotonic() < ends_at:
            busy.go_round()
            rounds += 1
    except (BrokenError, GuestCommandError) as error:
        faults = [f"after {busy.done.total()} steps: {error}", *two_of_one(daemon)]
    with daemon.connect() as connection:
        destroyed(connection, busy.instance_id)
    if not busy.written:
        faults.append("the guest has written nothing")
    steps = ", ".join(f"{name} {count}" for name, count in sorted(busy.done.items()))
    print(f"{busy.done.total():8} steps: {steps}\n{busy.kills:8} kills in their midst")
    print(f"{busy.written >> 4:8} MiB written meanwhile")
    return [*faults, *residue(daemon)]


class Busy:
    """One guest, what is done to it, and what must hold after."""

    def __init__(self, daemon: DaemonProcess, chance: random.Random) -> None:
        self.instance_id = str(uuid.uuid4())
        self.done: Counter[str] = Counter()
        self.kills = 0
        self.written = 0
        """How often a disk was given 64 KiB."""
        self._daemon, self._chance = daemon, chance
        self._guest = self._reached()
        self._machine: list[int] = []
        self._kills_next = False
        self._size_bytes = 4 * MIB
        """As large as the largest disk there is."""
        self._verbs: dict[str, Callable[[AttachedDisk], None]] = {
            "swap": self._swap,
            "commit": lambda disk: self._snapshot(disk, _COMMIT),
            "pull": lambda disk: self._snapshot(disk, _PULL),
            "extend": self._extend,
            "replug": self._replug,
            "pause": self._pause,
        }

    def begin(self) -> None:
        """The guest runs, with a disk of each bus."""
        spec = small_spec(backend="libvirt", name="busy")
        spec.flavor.memory_mib = _MEMORY_MIB
        spec.image.kernel_image_id = "kernel-generic"
        spec.image.ramdisk_image_id = "ramdisk-generic"
        spec.block_devices.append(self._new_disk(spec_pb2.DISK_BUS_SATA))
        request = instance_pb2.SpawnInstanceRequest(instance_id=self.instance_id, spec=spec)
        connection = self._guest.connection
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        console_until(connection, self.instance_id, _READY)
        self._machine = qemu_pids(self.instance_id)
        program = base64.b64encode(_WRITER.encode()).decode("ascii")
        self._guest.shell.run(f"echo {program} | base64 -d >/run/writer")
        for bus in BUSES:
            if bus != "SATA":
                self._guest.attach(self._new_disk(spec_pb2.DiskBus.Value(f"DISK_BUS_{bus}")))

    def go_round(self) -> None:
        """The guest writes, and things are done to its disks; then all is compared."""
        with self._writing():
            for number in range(1, _STEPS + 1):
                name, disks = self._chance.choice(list(self._verbs)), self._disks()
                if not disks:
                    raise BrokenError("libvirt knows the machine no more")
                disk = self._chance.choice(disks)
                self._kills_next = not number % _KILL_EVERY
                self._verbs[name](disk)
                self.done[name] += 1
                if qemu_pids(self.instance_id) != self._machine:
                    raise BrokenError(f"the machine ended in {name} of {disk}")
        self._compare()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        shell, names = self._guest.shell, [disk.device_name for disk in self._disks()]
        for name in names:
            shell.run(f"touch /run/{name}; {{ sh /run/writer {name} & }}")
        yield
        shell = self._guest.shell  # another daemon's, by now
        shell.run(f"cd /run; rm {' '.join(names)}; wait; sync")
        self.written += sum(map(int, shell.run("cat *.written; rm *.written").split()))

    def _compare(self) -> None:
        """What the guest reads is what is there, by whatever names it has its disks.

        One that goes while it is written to keeps its name for the moment that its successor comes.
        """
        shell, disks = self._guest.shell, self._disks()
        shell.run("echo 3 >/proc/sys/vm/drop_caches")
        names = shell.run("ls /sys/block | grep -E '^[sv]d'").split()
        # The shell may say before it that its jobs have ended.
        lines = [
            shell.run(f"head -c {4 * MIB} /dev/{name} | md5sum").splitlines() for name in names
        ]
        read = sorted(its[-1].split()[0] for its in lines)
        with self._paused():  # QEMU has written all that it knows by then
            there = sorted(map(_checksum, disks))
        if read != there:
            raise BrokenError(f"the guest reads {read} of {names}, and not {there} of {disks}")

    @contextmanager
    def _paused(self) -> Iterator[None]:
        instances = self._guest.connection.instances
        pause = instance_pb2.PauseInstanceRequest(instance_id=self.instance_id)
        instances.PauseInstance(pause, timeout=TIMEOUT_S)
        yield
        unpause = instance_pb2.UnpauseInstanceRequest(instance_id=self.instance_id)
        instances.UnpauseInstance(unpause, timeout=TIMEOUT_S)

    def _reached(self) -> VolumeGuest:
        return VolumeGuest(self._daemon.connect(), self.instance_id, "libvirt")

    def _disks(self) -> list[AttachedDisk]:
        return sorted(self._guest.disks("effective").values(), key=lambda disk: disk.device_name)

    def _new_disk(self, bus: "spec_pb2.DiskBus.ValueType") -> BlockDevice:
        path = self._daemon.sources / f"{uuid.uuid4()}.raw"
        with path.open("wb") as file:
            file.truncate(self._size_bytes)
        device = file_volume(path)
        device.bus = bus
        return device

    def _swap(self, disk: AttachedDisk) -> None:
        new = self._new_disk(disk.bus).volume
        self._call("SwapVolume", old_volume_id=disk.volume_id, new_volume=new)

    def _snapshot(self, disk: AttachedDisk, merge: int) -> None:
        which = {"volume_id": disk.volume_id, "snapshot_id": str(uuid.uuid4())}
        kills, first = self._kills_next, self._chance.random() < 0.5
        self._kills_next = kills and first
        self._call("CreateVolumeSnapshot", **which)
        self._kills_next = kills and not first
        self._call("DeleteVolumeSnapshot", **which, merge=merge)

    def _extend(self, disk: AttachedDisk) -> None:
        self._size_bytes += MIB
        self._call("ExtendVolume", volume_id=disk.volume_id, size_bytes=self._size_bytes)

    def _replug(self, disk: AttachedDisk) -> None:
        if disk.bus == spec_pb2.DISK_BUS_SATA:
            return
        again = {"retry_interval": {"seconds": 1}}
        self._call("DetachVolume", volume_id=disk.volume_id, **again)
        if all(left.device_name != disk.device_name for left in self._disks()):
            self._call("AttachVolume", device=self._new_disk(disk.bus))
        if len(self._disks()) < len(BUSES):
            self._guest.attach(self._new_disk(disk.bus))  # the first was undone by a kill

    def _pause(self, _disk: AttachedDisk) -> None:
        with self._paused():
            pass

    def _call(self, verb: str, **fields: Any) -> None:
        """Has a verb succeed; or, where the daemon dies in its midst, succeed or be undone."""
        which = {"instance_id": self.instance_id, "request_id": str(uuid.uuid4())}
        request = getattr(volume_pb2, f"{verb}Request")(**which, **fields)
        dies, self._kills_next = self._kills_next, False
        if dies:
            self._die_in(verb, request)
        try:
            answer = getattr(self._guest.connection.volumes, verb)(request, timeout=TIMEOUT_S)
            if isinstance(answer, Operation):
                answer = finished(self._guest.connection, answer)
                failed = answer.state != operation_pb2.OPERATION_STATE_SUCCEEDED
                error = str(answer.error) if failed else ""
            else:
                error = ""
        except grpc.RpcError as refused:
            error = str(refused)
        if error and not dies:
            raise BrokenError(f"{verb}: {error}")

    def _die_in(self, verb: str, request: Message) -> None:
        call = getattr(self._guest.connection.volumes, verb).future(request, timeout=TIMEOUT_S)
        time.sleep(self._chance.uniform(0, _KILL_WITHIN_S))
        self._daemon.kill()
        with suppress(grpc.RpcError):
            call.result()
        self._guest.leave_shell()
        self._guest.connection.close()
        self._daemon.start()
        self._guest = self._reached()
        self.kills += 1


def _checksum(disk: AttachedDisk) -> str:
    """Of what a disk begins with, and all it is based on; its guest is not asked."""
    path = Path(disk.source)
    if disk.format == DiskFormat.DISK_FORMAT_QCOW2:
        whole = path.with_suffix(".whole")
        command = ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), str(whole)]
        subprocess.run(command, check=True)
        path = whole
    with path.open("rb") as file:
        return hashlib.md5(file.read(4 * MIB), usedforsecurity=False).hexdigest()
