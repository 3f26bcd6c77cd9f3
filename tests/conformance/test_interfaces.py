"""Interfaces come and go, hot and cold; who has what; what is reserved for an instance to come."""

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2 as instances
from virtrpc.v1 import interface_pb2 as pb
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.host_facts import host_name
from tests.conformance.conftest import Guest, boot_anew, state_of
from tests.daemon import Connection
from tests.events_seen import cursor_now, events_after
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.refusals import refusal_of, refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXISTS = grpc.StatusCode.ALREADY_EXISTS
# Removed and added again within one boot: the guest is asked and answers.
DETACH_S = 30


def interface(**fields: Any) -> InterfaceSpec:
    return InterfaceSpec(**{"port_id": str(uuid.uuid4()), "user": {}, **fields})


def attach(connection: Connection, instance_id: str, spec: InterfaceSpec) -> Any:
    request = pb.AttachInterfaceRequest(instance_id=instance_id, interface=spec)
    return connection.interfaces.AttachInterface(request, timeout=TIMEOUT_S)


def detach(connection: Connection, instance_id: str, port_id: str, **fields: Any) -> Any:
    request = pb.DetachInterfaceRequest(instance_id=instance_id, port_id=port_id, **fields)
    if not request.HasField("timeout"):
        request.timeout.FromSeconds(DETACH_S)
        request.retry_interval.FromSeconds(2)
    return connection.interfaces.DetachInterface(request, timeout=TIMEOUT_S)


def ports(machine: instances.MachineState) -> list[str]:
    return [interface.port_id for interface in machine.interfaces]


@pytest.fixture
def ready_guest(running_guest: Guest, connection: Connection) -> Guest:
    """The shared guest, booted so far that it answers when a device is to go."""
    boot_anew(connection, running_guest.instance_id)
    return running_guest


def test_an_interface_comes_and_goes_while_the_guest_runs(
    connection: Connection, ready_guest: Guest
) -> None:
    spec, instance_id = interface(), ready_guest.instance_id
    before = state_of(connection, instance_id)
    cursor = cursor_now(connection)
    attached = attach(connection, instance_id, spec)
    assert attached.interface.port_id == spec.port_id
    assert attached.interface.mac_address.startswith("52:")
    assert attached.interface.type == "user"
    for machine in (attached.instance.effective, attached.instance.persistent):
        assert spec.port_id in ports(machine)
    assert attached.instance.spec.interfaces[-1] == spec
    told = events_after(connection, cursor, until=lambda e: "DEVICE_ADDED" in _type(e))
    assert told
    again = attach(connection, instance_id, spec)
    assert again.interface == attached.interface
    said = interface(port_id=spec.port_id, mac_address=attached.interface.mac_address)
    assert attach(connection, instance_id, said).interface == attached.interface
    with refused(EXISTS, "INTERFACE_DIFFERS"):
        attach(connection, instance_id, interface(port_id=spec.port_id, model="e1000e"))
    cursor = cursor_now(connection)
    gone = detach(connection, instance_id, spec.port_id)
    assert not gone.already_gone
    for machine in (gone.instance.effective, gone.instance.persistent):
        assert spec.port_id not in ports(machine)
    assert events_after(connection, cursor, until=lambda e: "DEVICE_REMOVED" in _type(e))
    assert detach(connection, instance_id, spec.port_id).already_gone
    after = state_of(connection, instance_id)
    assert after.spec == before.spec
    assert after.persistent == before.persistent
    assert ports(after.effective) == ports(before.effective)


def _type(event: Any) -> str:
    return str(
        type(event).DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[event.type].name
    )


def test_an_interface_comes_and_goes_while_the_machine_is_off(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id = running_guest.instance_id
    off = instances.PowerOffInstanceRequest(instance_id=instance_id)
    off.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    spec = interface(mac_address="52:54:00:aa:bb:01", link_down=True)
    attached = attach(connection, instance_id, spec)
    assert attached.interface.mac_address == "52:54:00:aa:bb:01"
    assert attached.interface.link_down
    assert not attached.instance.HasField("effective")
    power_on = instances.PowerOnInstanceRequest(instance_id=instance_id)
    started = connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S).instance
    assert spec.port_id in ports(started.effective)
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    by_mac = pb.DetachInterfaceRequest(
        instance_id=instance_id, mac_address=attached.interface.mac_address
    )
    gone = connection.interfaces.DetachInterface(by_mac, timeout=TIMEOUT_S)
    assert spec.port_id not in ports(gone.instance.persistent)
    assert spec.port_id not in [i.port_id for i in gone.instance.spec.interfaces]
    assert connection.interfaces.DetachInterface(by_mac, timeout=TIMEOUT_S).already_gone


def test_an_interface_that_takes_too_long_is_not_attached(
    connection: Connection, running_guest: Guest
) -> None:
    instance_id, spec = running_guest.instance_id, interface()
    before = state_of(connection, instance_id)
    request = pb.AttachInterfaceRequest(instance_id=instance_id, interface=spec)
    request.timeout.FromNanoseconds(1)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "INTERFACE_TIMEOUT"):
        connection.interfaces.AttachInterface(request, timeout=TIMEOUT_S)
    after = state_of(connection, instance_id)
    assert (after.spec, ports(after.effective)) == (before.spec, ports(before.effective))


def test_a_paused_guest_releases_nothing(connection: Connection, running_guest: Guest) -> None:
    instance_id = running_guest.instance_id
    (port_id,) = ports(state_of(connection, instance_id).effective)
    pause = instances.PauseInstanceRequest(instance_id=instance_id)
    connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
    with refused(PRECONDITION, "WRONG_STATE"):
        detach(connection, instance_id, port_id)
    assert ports(state_of(connection, instance_id).effective) == [port_id]


BAD: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
    ({"model": "ne2000"}, INVALID, "interface.model"),
    ({"mac_address": "00:00:00:00:00:00"}, INVALID, "interface.mac_address"),
    ({"mac_address": "01:00:5e:00:00:01"}, INVALID, "interface.mac_address"),
    ({"mac_address": "52:54:00:AA:00:01"}, INVALID, "interface.mac_address"),
    ({"mtu": 1400}, UNIMPLEMENTED, "interface.mtu"),
    ({"queues": 2}, UNIMPLEMENTED, "interface.queues"),
    ({"queues": 2, "model": "e1000e", "tap": {}, "port_security_disabled": True}, INVALID,
     "interface.queues"),
    ({"qos": {"inbound_average_kib_per_s": 1}}, UNIMPLEMENTED, "interface.qos"),
    ({"tap": {}, "qos": {"inbound_peak_kib_per_s": 1}, "port_security_disabled": True},
     INVALID, "interface.qos.inbound_average_kib_per_s"),
    ({"security_group_ids": [UNKNOWN]}, UNIMPLEMENTED, "interface.security_group_ids"),
    ({"addresses": ["127.0.0.1/8"]}, INVALID, "interface.addresses[0]"),
    ({"addresses": ["192.0.2.7/24", "192.0.2.7/25"]}, INVALID, "interface.addresses[1]"),
    ({"addresses": ["192.0.2.7"]}, INVALID, "interface.addresses[0]"),
    ({"gateways": ["192.0.2.1", "192.0.2.2"]}, INVALID, "interface.gateways[1]"),
    ({"tap": {"device": "vnet7"}, "port_security_disabled": True}, INVALID,
     "interface.tap.device"),
    ({"tap": {"managed_by_caller": True}, "port_security_disabled": True}, INVALID,
     "interface.tap.device"),
    ({"tap": {}, "mtu": 60, "port_security_disabled": True}, INVALID, "interface.mtu"),
    ({"tap": {}, "mtu": 1279, "addresses": ["2001:db8::1/64"], "port_security_disabled": True},
     INVALID, "interface.mtu"),
    ({"vhost_user": {"socket_path": "/run/../etc/x"}, "port_security_disabled": True}, INVALID,
     "interface.vhost_user.socket_path"),
    ({"vhost_user": {"socket_path": "/run/x"}, "model": "e1000", "port_security_disabled": True},
     INVALID, "interface.model"),
    ({"bridge": {"bridge": "../br0"}}, INVALID, "interface.bridge.bridge"),
    ({"bridge": {"bridge": "a-name-that-is-too-long"}}, INVALID, "interface.bridge.bridge"),
    ({"port_id": "eth0"}, INVALID, "interface.port_id"),
    ({"tag": "a b"}, INVALID, "interface.tag"),
    ({"open_vswitch": {"bridge": "br", "vlan": 4095}}, INVALID, "interface.open_vswitch.vlan"),
    ({"host_device": {"pci_address": "03:10.2"}}, INVALID, "interface.host_device.pci_address"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "field"), BAD, ids=[str(b[0])[:60] for b in BAD])
def test_what_an_interface_cannot_be_is_refused_and_nothing_changes(
    connection: Connection, guest: Guest, fields: dict[str, Any], code: Any, field: str
) -> None:
    before = state_of(connection, guest.instance_id)
    with pytest.raises(grpc.RpcError) as caught:
        attach(connection, guest.instance_id, _of_kind(fields))
    refusal = refusal_of(caught.value)
    assert field in refusal.fields, refusal
    assert refusal.code in (code, PRECONDITION), refusal  # with others that it meets here
    after = state_of(connection, guest.instance_id)
    assert (after.spec, after.persistent) == (before.spec, before.persistent)


def _of_kind(fields: dict[str, Any]) -> InterfaceSpec:
    other = {"tap", "bridge", "vhost_user", "open_vswitch", "host_device", "macvtap"}
    base: dict[str, Any] = {"port_id": str(uuid.uuid4())}
    if not other & fields.keys():
        base["user"] = {}
    return InterfaceSpec(**{**base, **fields})


@pytest.mark.parametrize(
    "network", [{"tap": {}}, {"macvtap": {"device": "lo"}}, {"open_vswitch": {"bridge": "b"}}]
)
def test_who_cannot_be_watched_must_be_trusted(
    connection: Connection, guest: Guest, network: dict[str, Any]
) -> None:
    spec = InterfaceSpec(port_id=str(uuid.uuid4()), **network)
    with pytest.raises(grpc.RpcError) as caught:
        attach(connection, guest.instance_id, spec)
    assert "interface.port_security_disabled" in refusal_of(caught.value).fields


def test_a_network_that_is_not_there_is_not_found(
    connection: Connection, guest: Guest, backend: str
) -> None:
    theirs = {"device": "missing0", "managed_by_caller": True}
    specs = [
        interface(bridge={"bridge": "missing0"}, port_security_disabled=True),
        interface(tap=theirs, port_security_disabled=True),
    ]
    if backend == "fake":  # the embedded driver can have none
        specs.append(interface(macvtap={"device": "missing0"}, port_security_disabled=True))
    for spec in specs:
        with refused(grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND") as refusal:
            attach(connection, guest.instance_id, spec)
        assert refusal.fields[0].startswith(f"interface.{spec.WhichOneof('network')}")


@pytest.fixture
def prepared(connection: Connection) -> Iterator[str]:
    """The id of an instance to come; what was prepared for it is given up after."""
    instance_id = str(uuid.uuid4())
    yield instance_id
    clean = pb.CleanNetworksPreparationRequest(instance_id=instance_id)
    connection.interfaces.CleanNetworksPreparation(clean, timeout=TIMEOUT_S)


def prepare(connection: Connection, instance_id: str, *specs: InterfaceSpec) -> Any:
    request = pb.PrepareNetworksRequest(instance_id=instance_id, interfaces=specs)
    return connection.interfaces.PrepareNetworks(request, timeout=TIMEOUT_S)


def test_what_another_interface_has_is_not_given_twice(
    connection: Connection, guest: Guest, prepared: str
) -> None:
    (own,) = state_of(connection, guest.instance_id).effective.interfaces
    with refused(PRECONDITION, "PORT_IN_USE") as refusal:
        prepare(connection, prepared, interface(port_id=own.port_id))
    assert refusal.metadata["instance_id"] == guest.instance_id
    with refused(EXISTS, "MAC_TAKEN") as refusal:
        prepare(connection, prepared, interface(mac_address=own.mac_address))
    assert refusal.fields == ["interfaces[0].mac_address"]
    reserved = interface(mac_address="52:54:00:aa:bb:02")
    prepare(connection, prepared, reserved)
    with refused(EXISTS, "MAC_TAKEN") as refusal:
        attach(connection, guest.instance_id, interface(mac_address=reserved.mac_address))
    assert refusal.metadata["instance_id"] == prepared


def test_networks_are_prepared_for_the_instance_that_comes(
    connection: Connection, backend: str, prepared: str
) -> None:
    specs = [interface(), interface(mac_address="52:54:00:aa:bb:03")]
    reserved = prepare(connection, prepared, *specs).interfaces
    assert [one.port_id for one in reserved] == [spec.port_id for spec in specs]
    assert reserved[1].mac_address == "52:54:00:aa:bb:03"
    assert prepare(connection, prepared, *specs).interfaces == reserved
    with refused(EXISTS, "INTERFACE_DIFFERS"):
        prepare(connection, prepared, specs[0])
    request = instances.SpawnInstanceRequest(
        instance_id=prepared, spec=small_spec(backend=backend), validate_only=True
    )
    with refused(EXISTS, "INTERFACE_DIFFERS"):
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    request.spec.interfaces.extend(specs)
    connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    clean = pb.CleanNetworksPreparationRequest(instance_id=prepared)
    assert not connection.interfaces.CleanNetworksPreparation(clean).already_gone
    assert connection.interfaces.CleanNetworksPreparation(clean).already_gone


def test_an_instance_that_exists_has_nothing_to_prepare(
    connection: Connection, guest: Guest
) -> None:
    with refused(PRECONDITION, "WRONG_STATE"):
        prepare(connection, guest.instance_id, interface())


def test_plugging_names_its_ports(connection: Connection, guest: Guest) -> None:
    plug = pb.PlugInterfacesRequest(instance_id=guest.instance_id)
    found = connection.interfaces.PlugInterfaces(plug, timeout=TIMEOUT_S).interfaces
    assert [one.port_id for one in found] == ports(
        state_of(connection, guest.instance_id).effective
    )
    plug.port_ids.append(UNKNOWN)
    with refused(grpc.StatusCode.NOT_FOUND, "PORT_NOT_FOUND") as refusal:
        connection.interfaces.PlugInterfaces(plug, timeout=TIMEOUT_S)
    assert refusal.fields == ["port_ids[0]"]


def test_what_a_machine_uses_is_not_unplugged(connection: Connection, guest: Guest) -> None:
    unplug = pb.UnplugInterfacesRequest(instance_id=guest.instance_id)
    with refused(PRECONDITION, "WRONG_STATE"):
        connection.interfaces.UnplugInterfaces(unplug, timeout=TIMEOUT_S)
    unplug.instance_id = UNKNOWN
    assert not connection.interfaces.UnplugInterfaces(unplug, timeout=TIMEOUT_S).port_ids


def test_policy_tells_what_a_network_service_must_know(connection: Connection) -> None:
    request = pb.GetInterfacePolicyRequest()
    policy = connection.interfaces.GetInterfacePolicy(request, timeout=TIMEOUT_S)
    assert not policy.allowed_mac_addresses
    assert policy.binding_host_id == host_name()
    assert not policy.manages_bindings
    assert interface_mac_begins(policy.mac_prefix)


def interface_mac_begins(prefix: str) -> bool:
    return bool(prefix) and int(prefix.split(":", maxsplit=1)[0], 16) & 3 == 2


VERBS: list[tuple[str, dict[str, Any]]] = [
    ("AttachInterface", {"interface": {"port_id": UNKNOWN, "user": {}}}),
    ("DetachInterface", {"port_id": UNKNOWN}),
    ("PlugInterfaces", {}),
]


@pytest.mark.parametrize(("verb", "fields"), VERBS, ids=[verb for verb, _ in VERBS])
def test_an_unknown_instance_is_not_found(
    connection: Connection, verb: str, fields: dict[str, Any]
) -> None:
    request: Message = getattr(pb, f"{verb}Request")(instance_id=UNKNOWN, **fields)
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        getattr(connection.interfaces, verb)(request, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("verb", "fields"),
    [*VERBS, ("UnplugInterfaces", {}), ("CleanNetworksPreparation", {})],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_validate_only_changes_nothing(
    connection: Connection, guest: Guest, verb: str, fields: dict[str, Any]
) -> None:
    before, cursor = state_of(connection, guest.instance_id), cursor_now(connection)
    instance_id = UNKNOWN if verb == "UnplugInterfaces" else guest.instance_id
    make = getattr(pb, f"{verb}Request")
    request = make(instance_id=instance_id, validate_only=True, **fields)
    getattr(connection.interfaces, verb)(request, timeout=TIMEOUT_S)
    assert state_of(connection, guest.instance_id).persistent == before.persistent
    assert cursor_now(connection) == cursor


def test_an_instance_with_interfaces_is_spawned_as_prepared(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.interfaces.append(interface(addresses=["192.0.2.7/24"], tag="front"))
    with spawned(connection, spec) as instance_id:
        assert state_of(connection, instance_id).spec == spec
