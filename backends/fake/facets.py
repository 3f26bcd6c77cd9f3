"""All that the fake backend pretends to do, by noun."""

from collections.abc import Iterator

from backends.contract import Facet
from backends.fake.adoption import FakeAdoption
from backends.fake.diagnostics import FakeDiagnostics
from backends.fake.guest import FakeGuestAgent
from backends.fake.intent import FakeIntent
from backends.fake.interfaces import FakeDevices, FakeInterfaceHost
from backends.fake.lifecycle import FakeInstanceFiles, FakeLifecycle
from backends.fake.parts import Parts
from backends.fake.power import FakePower
from backends.fake.rebuild import FakeRebuild
from backends.fake.rescue import FakeRescue
from backends.fake.shares import FakeShares
from backends.fake.snapshots import FakeSnapshots
from backends.fake.suspension import FakeSuspension
from backends.fake.volume_snapshots import FakeVolumeSnapshots
from backends.fake.volumes import FakeVolumes
from backends.firewall.verbs import HostFiltering
from backends.host_power import CommandedPower
from backends.images.verbs import HostImages
from backends.interfaces.verbs import HostInterfaces
from backends.volumes.facts import HostVolumeFacts, initiator_name
from backends.work import Work


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
    host, images = parts.host, parts.image_store
    yield FakeLifecycle(host, parts.spawning, parts.side, parts.migrations.book)
    yield FakeInstanceFiles(host, parts.side)
    yield FakePower(host)
    yield FakeSuspension(host)
    yield FakeGuestAgent(host)
    yield FakeDiagnostics(host)
    yield FakeIntent(host, reclaim_after_s=parts.options.reclaim_after_s)
    yield FakeRebuild(host, images, parts.spawning)
    yield FakeRescue(host, images)
    yield FakeSnapshots(host, images)
    yield FakeShares(host, parts.options.share_dirs, parts.features)
    yield FakeAdoption(host)


def _volumes(parts: Parts) -> Iterator[Facet]:
    volumes = FakeVolumes(parts.host, parts.storage)
    yield volumes
    yield FakeVolumeSnapshots(parts.host, volumes)
    yield HostVolumeFacts(
        find=parts.host.find,
        features=lambda: parts.features,
        initiator=initiator_name(parts.options.state_dir),
    )


def _network(parts: Parts) -> Iterator[Facet]:
    host = FakeInterfaceHost(parts.host)
    yield HostInterfaces(host, parts.side)
    yield HostFiltering(host, parts.firewall, FakeDevices())


def _host(parts: Parts) -> Iterator[Facet]:
    host = parts.host

    def observed(work: Work, verb: str) -> Work:
        return host.faulty(work, verb, None)

    yield HostImages(
        parts.image_store, parts.image_users, instances=host.instances, observed=observed
    )
    yield CommandedPower(
        parts.options.host_power,
        instances=host.instances,
        own_way={},  # the machine that it runs on is not the host that it pretends to be
        observed=observed,
    )
