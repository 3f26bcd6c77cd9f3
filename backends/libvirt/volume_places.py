"""Where volumes really are on this host, for whoever writes them into a domain."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
from virtrpc.v1.spec_pb2 import VolumeConnection

from backends.errors import ContractError
from backends.libvirt.blueprint import LocatedVolume, unwritable
from backends.libvirt.domains import Domains
from backends.volumes.facts import initiator_name
from backends.volumes.policy import VolumePolicy
from backends.volumes.storage import Storage


class VolumePlaces:
    """Volumes by the files behind them."""

    def __init__(self, domains: Domains, policy: VolumePolicy, state_dir: Path) -> None:
        self._domains = domains
        self.initiator = initiator_name(state_dir)
        self.storage = Storage(policy, initiator=self.initiator)

    def of(self, volume: VolumeConnection) -> LocatedVolume:
        """A volume that was checked, by the path where it really is, and what it is based on."""
        located = self.storage.located(volume)
        return LocatedVolume(volume=located, chain=self.storage.chain(located))

    def forget_snapshots(self, domain: libvirt.virDomain, volume_id: str) -> None:
        """What was known of the snapshots of a volume that has gone."""
        own = self._domains.own(domain)
        kept = [s for s in own.snapshots if s.volume_id != volume_id]
        if kept != own.snapshots:
            own.snapshots = kept
            self._domains.save_own(domain, own)


def volume_texts(volume: VolumeConnection, field: str) -> Iterator[ContractError]:
    """Texts of a volume that no domain can hold."""
    kind = volume.WhichOneof("source") or ""
    source = getattr(volume, kind)
    texts = {
        f"{field}.{kind}.{name.name}": value
        for name, value in source.ListFields()
        if isinstance(value, str)
    }
    yield from unwritable(texts)
