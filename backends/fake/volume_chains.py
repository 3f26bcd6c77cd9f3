"""Files of volumes on the fake: chains of names, and the snapshots that they hold."""

import posixpath
import threading
from dataclasses import dataclass, field

from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.volume_pb2 import VolumeSnapshot


@dataclass
class Chain:
    """Of one attachment."""

    names: list[str]
    """Of its files, the active one first."""
    taken: list[VolumeSnapshot] = field(default_factory=list)
    """Oldest first."""


class VolumeChains:
    """Chains of the volumes that have snapshots, by instance and attachment; gone with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chains: dict[tuple[str, str], Chain] = {}

    def of(self, instance_id: str, disk: AttachedDisk) -> Chain:
        """The chain of an attachment: its file alone where it has no snapshot."""
        with self._lock:
            known = self._chains.get((instance_id, disk.attachment_id))
        return known or Chain([posixpath.basename(disk.source)])

    def keep(self, instance_id: str, attachment_id: str, chain: Chain) -> None:
        """Remembers a chain."""
        with self._lock:
            self._chains[instance_id, attachment_id] = chain

    def forget(self, instance_id: str, attachment_id: str = "") -> None:
        """Forgets the chain of an attachment, or of all that the instance has."""
        with self._lock:
            for key in list(self._chains):
                if key[0] == instance_id and attachment_id in ("", key[1]):
                    del self._chains[key]

    def taken(self, instance_id: str) -> list[VolumeSnapshot]:
        """All snapshots of the volumes of an instance."""
        with self._lock:
            chains = [chain for key, chain in self._chains.items() if key[0] == instance_id]
        return [snapshot for chain in chains for snapshot in chain.taken]
