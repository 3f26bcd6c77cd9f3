"""All that the libvirt backend can do, by noun."""

from collections.abc import Iterator

from backends.contract import Facet
from backends.firewall.verbs import HostFiltering
from backends.host_power import SYSTEMD, CommandedPower
from backends.images.verbs import HostImages
from backends.interfaces.devices import HostDevices
from backends.interfaces.verbs import HostInterfaces
from backends.libvirt.adoption import LibvirtAdoption
from backends.libvirt.diagnostics import LibvirtDiagnostics
from backends.libvirt.intent import LibvirtIntent
from backends.libvirt.interfaces import LibvirtInterfaceHost
from backends.libvirt.lifecycle import LibvirtInstanceFiles, LibvirtLifecycle
from backends.libvirt.parts import Parts
from backends.libvirt.power import LibvirtPower
from backends.libvirt.rebuild import LibvirtRebuild
from backends.libvirt.rescue import LibvirtRescue
from backends.libvirt.shares import LibvirtShares
from backends.libvirt.snapshots import LibvirtSnapshots
from backends.libvirt.suspension import LibvirtSuspension
from backends.libvirt.volume_snapshots import LibvirtVolumeSnapshots
from backends.libvirt.volumes import LibvirtVolumes
from backends.volumes.facts import HostVolumeFacts


def all_facets(parts: Parts) -> tuple[Facet, ...]:
    """The facets, on what they share."""
    return (
        *_instances(parts),
        *_volumes(parts),
        *_network(parts),
        *_host(parts),
        *parts.migrations.facets,
    )


def _instances(parts: Parts) -> Iterator[Facet]:
    domains, folders, images = parts.domains, parts.folders, parts.image_store
    yield LibvirtLifecycle(domains, folders, parts.spawning, parts.side, parts.migrations.book)
    yield LibvirtInstanceFiles(domains, folders, parts.side)
    yield LibvirtPower(domains)
    yield LibvirtSuspension(domains)
    yield parts.guest
    yield LibvirtDiagnostics(domains)
    yield LibvirtIntent(domains, reclaim_after_s=parts.options.reclaim_after_s)
    yield LibvirtRebuild(domains, folders, images, parts.spawning)
    yield LibvirtRescue(domains, folders, images)
    yield LibvirtSnapshots(domains, images, parts.guest)
    yield LibvirtShares(domains, parts.probed, parts.options.share_dirs)
    yield LibvirtAdoption(domains, folders, image_dir=parts.options.image_dir)


def _volumes(parts: Parts) -> Iterator[Facet]:
    yield LibvirtVolumes(parts.domains, parts.places, parts.probed)
    yield LibvirtVolumeSnapshots(parts.domains, parts.guest)
    yield HostVolumeFacts(
        find=parts.find,
        features=lambda: parts.probed.features,
        initiator=parts.places.initiator,
    )


def _network(parts: Parts) -> Iterator[Facet]:
    host = LibvirtInterfaceHost(parts.domains, parts.probed)
    yield HostInterfaces(host, parts.side)
    yield HostFiltering(host, parts.firewall, HostDevices())


def _host(parts: Parts) -> Iterator[Facet]:
    instances = parts.domains.read_all
    yield HostImages(parts.image_store, parts.image_users, instances=instances)
    yield CommandedPower(parts.options.host_power, instances=instances, own_way=SYSTEMD)
