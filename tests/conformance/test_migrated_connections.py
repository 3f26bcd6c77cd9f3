"""What a guest is connected to goes with it: volumes, interfaces, security groups."""

import uuid
from typing import Any

import grpc
import pytest
from virtrpc.v1 import firewall_pb2, instance_pb2, interface_pb2, volume_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import (
    BlockDevice,
    BridgeNetwork,
    InstanceSpec,
    InterfaceSpec,
    IscsiVolume,
    NbdVolume,
    VolumeConnection,
)

from tests.instances import destroyed, small_spec, spawned
from tests.migrations import Host, ended, instance_at, live_request, migrated
from tests.refusals import refused

TIMEOUT_S = 20.0
GROUP, REMOTE = (f"11111111-0000-4000-8000-00000000000{n}" for n in (1, 2))


def bridged() -> InterfaceSpec:
    return InterfaceSpec(
        port_id=str(uuid.uuid4()), bridge=BridgeNetwork(bridge="br0"), security_group_ids=[GROUP]
    )


def nbd(**fields: Any) -> VolumeConnection:
    server = NbdVolume(**{"host": "192.0.2.7", "export": "v", **fields})
    return VolumeConnection(volume_id=str(uuid.uuid4()), nbd=server)


def iscsi(host: str) -> VolumeConnection:
    server = IscsiVolume(host=host, target_iqn="iqn.2026-01.dev.virtrpc:t", lun=1)
    return VolumeConnection(volume_id=str(uuid.uuid4()), iscsi=server)


def connected() -> InstanceSpec:
    """An instance on a bridge, in a group."""
    spec = small_spec(backend="fake")
    spec.interfaces.append(bridged())
    return spec


def attach(host: Host, instance_id: str, volume: VolumeConnection) -> None:
    device = BlockDevice(volume=volume)
    host.connection.volumes.AttachVolume(
        volume_pb2.AttachVolumeRequest(instance_id=instance_id, device=device), timeout=TIMEOUT_S
    )


def give_group(host: Host, group_id: str = GROUP, **fields: Any) -> list[str]:
    """The instances that a change of a group concerns."""
    group = firewall_pb2.SecurityGroup(security_group_id=group_id, **fields)
    request = firewall_pb2.RefreshSecurityGroupRequest(security_group=group)
    return list(
        host.connection.firewall.RefreshSecurityGroup(request, timeout=TIMEOUT_S).instance_ids
    )


def blockers_of(host: Host, instance_id: str, there: Host) -> set[str]:
    operation = ended(host, live_request(instance_id, there))
    return {blocker.reason for blocker in operation.error.blockers} or {operation.error.reason}


def port_is_free(host: Host, interface: InterfaceSpec) -> bool:
    """Whether another instance could have it there."""
    request = interface_pb2.PrepareNetworksRequest(
        instance_id=str(uuid.uuid4()), interfaces=[interface], validate_only=True
    )
    try:
        host.connection.interfaces.PrepareNetworks(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        return False
    return True


def prepared(
    here: Host, there: Host, instance_id: str, migration_id: str
) -> pb.PrepareDestinationRequest:
    """What a controller asks of the destination."""
    ids: dict[str, Any] = {"instance_id": instance_id, "migration_id": migration_id}
    instance = instance_at(here, instance_id)
    assert instance is not None
    source = pb.MigrationSource(flavor=instance.spec.flavor)
    check = there.connection.migrations.CheckDestination(
        pb.CheckDestinationRequest(source=source, **ids), timeout=TIMEOUT_S
    ).check
    found = here.connection.migrations.CheckSource(
        pb.CheckSourceRequest(destination_uri=there.uri, check=check, **ids), timeout=TIMEOUT_S
    )
    assert not found.blockers
    return pb.PrepareDestinationRequest(data=found.data, spec=instance.spec, **ids)


def test_volumes_and_interfaces_go_along(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    remote = firewall_pb2.SecurityGroupRule(
        direction=firewall_pb2.TRAFFIC_DIRECTION_INGRESS, remote_group_id=REMOTE
    )
    give_group(here, REMOTE, member_addresses=["192.0.2.9"])
    give_group(here, rules=[remote])
    with spawned(here.connection, connected()) as instance_id:
        volume = nbd()
        attach(here, instance_id, volume)
        before = instance_at(here, instance_id)
        migrated(here, live_request(instance_id, there))
        after = instance_at(there, instance_id)
        assert before is not None and after is not None
        assert after.spec == before.spec
        assert after.persistent == before.persistent
        assert (give_group(here), give_group(there, revision=2)) == ([], [instance_id])
        assert give_group(there, REMOTE, revision=2) == [] != give_group(there, rules=[remote])
        assert port_is_free(here, before.spec.interfaces[0])
        assert not port_is_free(there, before.spec.interfaces[0])
        destroyed(there.connection, instance_id)
        assert port_is_free(there, before.spec.interfaces[0])


def test_rollback_gives_back_ports_filters_and_groups(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    filters, unknown = there.daemon.state_dir / "fake" / "firewall", str(uuid.uuid4())
    before = {*filters.rglob("*")}
    with spawned(here.connection, connected()) as instance_id:
        migration_id = str(uuid.uuid4())
        request = prepared(here, there, instance_id, migration_id)
        any_out = firewall_pb2.SecurityGroupRule(direction=firewall_pb2.TRAFFIC_DIRECTION_EGRESS)
        request.security_groups.add(security_group_id=unknown, rules=[any_out])
        there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S)
        assert not port_is_free(there, request.spec.interfaces[0])
        names = {path.stem for path in {*filters.rglob("*")} - before}
        assert names == {instance_id, unknown}
        there.connection.migrations.RollbackDestination(
            pb.RollbackDestinationRequest(instance_id=instance_id, migration_id=migration_id),
            timeout=TIMEOUT_S,
        )
        assert port_is_free(there, request.spec.interfaces[0])
        assert {*filters.rglob("*")} == before


def test_destination_connects_as_its_controller_says(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    with spawned(here.connection, connected()) as instance_id:
        volume = nbd(host="127.0.0.1")
        attach(here, instance_id, volume)
        migration_id = str(uuid.uuid4())
        request = prepared(here, there, instance_id, migration_id)
        request.spec.interfaces[0].bridge.bridge = "br7"
        volume.nbd.host = "192.0.2.8"
        request.spec.block_devices.add(volume=volume)
        data = there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S).data
        assert data.interfaces[0].bridge.bridge == "br7"
        (disk,) = (disk for disk in data.disks if disk.volume_id)
        assert disk.destination_source == "nbd://192.0.2.8:10809/v"
        live = live_request(instance_id, there, migration_id=migration_id)
        live.data.CopyFrom(data)
        ids: dict[str, Any] = {"instance_id": instance_id, "migration_id": migration_id}
        left = here.connection.migrations.CompleteSource(
            pb.CompleteSourceRequest(data=migrated(here, live).data, **ids), timeout=TIMEOUT_S
        )
        arrived = there.connection.migrations.CompleteDestination(
            pb.CompleteDestinationRequest(data=left.data, **ids), timeout=TIMEOUT_S
        ).instance
        assert arrived.spec.interfaces[0].bridge.bridge == "br7"
        destroyed(there.connection, instance_id)


def test_other_ports_than_the_guest_has_are_refused(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    with spawned(here.connection, connected()) as instance_id:
        request = prepared(here, there, instance_id, str(uuid.uuid4()))
        request.spec.interfaces[0].port_id = str(uuid.uuid4())
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
            there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S)
        assert refusal.fields == ["spec.interfaces"]


def test_key_of_a_volume_has_to_be_given(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        volume = nbd()
        volume.encryption.passphrase = b"canary-passphrase"
        attach(here, instance_id, volume)
        assert blockers_of(here, instance_id, there) == {"VOLUME_SECRET_NEEDED"}
        request = prepared(here, there, instance_id, str(uuid.uuid4()))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "VOLUME_SECRET_NEEDED"):
            there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S)
        request.spec.block_devices.add(volume=volume)
        request.validate_only = True
        there.connection.migrations.PrepareDestination(request, timeout=TIMEOUT_S)


@pytest.mark.parametrize("volume", [nbd(host="localhost"), iscsi("::1")])
def test_what_each_host_would_reach_by_itself_is_refused(
    hosts: tuple[Host, Host], volume: VolumeConnection
) -> None:
    here, there = hosts
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        attach(here, instance_id, volume)
        assert blockers_of(here, instance_id, there) == {"VOLUME_NOT_SHARED"}


def test_volume_that_another_instance_has_there_is_refused(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    with (
        spawned(here.connection, small_spec(backend="fake")) as instance_id,
        spawned(there.connection, small_spec(backend="fake")) as other,
    ):
        volume = nbd()
        attach(here, instance_id, volume)
        attach(there, other, volume)
        assert blockers_of(here, instance_id, there) == {"VOLUME_IN_USE"}


@pytest.mark.parametrize(
    "network",
    [{"host_device": {"pci_address": "0000:03:00.1"}}, {"macvtap": {"device": "eth0"}}],
    ids=str,
)
def test_device_of_the_host_holds_its_guest(
    hosts: tuple[Host, Host], network: dict[str, Any]
) -> None:
    here, there = hosts
    spec = small_spec(backend="fake")
    spec.interfaces.add(
        port_id=str(uuid.uuid4()),
        port_security_disabled=True,
        **network,
    )
    with spawned(here.connection, spec) as instance_id:
        assert blockers_of(here, instance_id, there) == {"INTERFACE_NOT_MIGRATED"}


def test_rescued_instance_stays(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    with spawned(here.connection, small_spec(backend="fake", boot="disk")) as instance_id:
        rescue = instance_pb2.RescueInstanceRequest(
            instance_id=instance_id, rescue_image_id="guest"
        )
        here.connection.instances.RescueInstance(rescue, timeout=TIMEOUT_S)
        assert "WRONG_STATE" in blockers_of(here, instance_id, there)
