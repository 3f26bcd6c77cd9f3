"""Devices of the host that interfaces need: there with them, gone with them."""

import uuid
from typing import Any

import grpc
import pytest
from virtrpc.v1 import firewall_pb2
from virtrpc.v1 import interface_pb2 as pb
from virtrpc.v1.spec_pb2 import InterfaceSpec

from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S
from tests.libvirt.guests import instance_of, power_off, power_on
from tests.network.conftest import GROUP, Host
from tests.network.lan import BRIDGE, DOWN_BRIDGE, UPLINK, Lan
from tests.refusals import refused

pytestmark = pytest.mark.libvirt


def attach(connection: Connection, instance_id: str, **fields: Any) -> pb.AttachInterfaceResponse:
    interface = InterfaceSpec(**{"port_id": str(uuid.uuid4()), **fields})
    request = pb.AttachInterfaceRequest(instance_id=instance_id, interface=interface)
    reply: pb.AttachInterfaceResponse = connection.interfaces.AttachInterface(
        request, timeout=TIMEOUT_S
    )
    return reply


def detach(connection: Connection, instance_id: str, port_id: str) -> None:
    request = pb.DetachInterfaceRequest(instance_id=instance_id, port_id=port_id)
    request.timeout.FromSeconds(30)
    request.retry_interval.FromSeconds(3)
    connection.interfaces.DetachInterface(request, timeout=TIMEOUT_S)


def files(daemon: DaemonProcess) -> set[str]:
    folders = (daemon.state_dir / "firewall", daemon.state_dir / "prepared")
    return {str(path) for folder in folders for path in folder.rglob("*")}


def test_rounds_of_attach_and_detach_leave_nothing(
    lan: Lan, lan_daemon: DaemonProcess, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    instance_id = pair[0].instance_id
    before = (set(lan.links()), lan.table(), files(lan_daemon))
    kinds: list[dict[str, Any]] = [
        {"bridge": {"bridge": BRIDGE}, "mtu": 1400, "addresses": ["192.0.2.50/24"]},
        {"tap": {}, "port_security_disabled": True},
    ]
    for fields in kinds * 2:
        attached = attach(lan_connection, instance_id, **fields).interface
        link = lan.links()[attached.host_device]
        assert len(attached.host_device) <= 15
        if "bridge" in fields:
            assert (link["mtu"], link["master"]) == (1400, BRIDGE)
            assert f"source-{attached.host_device}" in lan.table()
        detach(lan_connection, instance_id, attached.port_id)
        assert attached.host_device not in lan.links()
    assert (set(lan.links()), lan.table(), files(lan_daemon)) == before


def test_a_guest_that_does_not_answer_keeps_its_interface(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    host = pair[1]
    made = attach(lan_connection, host.instance_id, bridge={"bridge": BRIDGE})
    power_off(lan_connection, host.instance_id)
    power_on(lan_connection, host.instance_id)  # its firmware knows of no such thing
    request = pb.DetachInterfaceRequest(
        instance_id=host.instance_id, port_id=made.interface.port_id
    )
    request.timeout.FromMilliseconds(300)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "DEVICE_NOT_RELEASED"):
        lan_connection.interfaces.DetachInterface(request, timeout=TIMEOUT_S)
    machine = instance_of(lan_connection, host.instance_id)
    for state in (machine.effective, machine.persistent):
        assert made.interface.port_id in [nic.port_id for nic in state.interfaces]
    assert made.interface.host_device in lan.links()
    assert f"to-{made.interface.host_device}" in lan.table()
    power_off(lan_connection, host.instance_id)
    detach(lan_connection, host.instance_id, made.interface.port_id)
    assert made.interface.host_device not in lan.table()
    power_on(lan_connection, host.instance_id)
    assert made.interface.host_device not in lan.links()


def test_a_macvtap_needs_a_libvirtd(lan_connection: Connection, pair: tuple[Host, Host]) -> None:
    """The embedded driver would take the daemon with it when the device goes."""
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        attach(
            lan_connection,
            pair[0].instance_id,
            macvtap={"device": UPLINK},
            port_security_disabled=True,
        )
    assert refusal.metadata["capability"] == "interface_macvtap"


def test_a_tap_of_the_callers_is_kept(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    lan.run("ip", "tuntap", "add", "dev", "theirs", "mode", "tap", "vnet_hdr")
    theirs = {"device": "theirs", "managed_by_caller": True}
    made = attach(lan_connection, pair[0].instance_id, tap=theirs, port_security_disabled=True)
    assert made.interface.host_device == "theirs"
    with refused(grpc.StatusCode.ALREADY_EXISTS, "HOST_DEVICE_TAKEN"):
        attach(lan_connection, pair[1].instance_id, tap=theirs, port_security_disabled=True)
    detach(lan_connection, pair[0].instance_id, made.interface.port_id)
    assert "theirs" in lan.links()
    lan.run("ip", "link", "delete", "theirs")


def test_a_bridge_that_is_down_takes_nobody(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    before = (set(lan.links()), lan.table())
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_DOWN") as refusal:
        attach(lan_connection, pair[0].instance_id, bridge={"bridge": DOWN_BRIDGE})
    assert refusal.fields == ["interface.bridge.bridge"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        attach(
            lan_connection,
            pair[0].instance_id,
            tap={"device": UPLINK, "managed_by_caller": True},
            port_security_disabled=True,
        )
    assert (set(lan.links()), lan.table()) == before


def test_what_is_unplugged_comes_back_before_its_machine_starts(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    host = pair[1]
    power_off(lan_connection, host.instance_id)
    assert host.tap not in lan.links()
    unplug = pb.UnplugInterfacesRequest(instance_id=host.instance_id)
    reply = lan_connection.interfaces.UnplugInterfaces(unplug, timeout=TIMEOUT_S)
    assert list(reply.port_ids) == [host.interface.port_id]
    assert not lan_connection.interfaces.UnplugInterfaces(unplug, timeout=TIMEOUT_S).port_ids
    assert f"to-{host.tap}" not in lan.table()
    plug = pb.PlugInterfacesRequest(instance_id=host.instance_id)
    (found,) = lan_connection.interfaces.PlugInterfaces(plug, timeout=TIMEOUT_S).interfaces
    assert found.port_id == host.interface.port_id
    assert f"to-{host.tap}" in lan.table()
    unfilter = firewall_pb2.UnfilterInstanceRequest(instance_id=host.instance_id)
    lan_connection.firewall.UnfilterInstance(unfilter, timeout=TIMEOUT_S)
    assert f"to-{host.tap}" not in lan.table()
    power_on(lan_connection, host.instance_id)
    assert f"to-{host.tap}" in lan.table()
    assert lan.links()[host.tap]["master"] == BRIDGE


def test_an_instance_leaves_its_groups(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    host = pair[1]
    request = firewall_pb2.RefreshInstanceSecurityRulesRequest(instance_id=host.instance_id)
    change = request.interfaces.add(port_id=host.interface.port_id, unfiltered=True)
    lan_connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    assert _chain(lan, f"to-{host.tap}") == []
    assert list(_interface(lan_connection, host).security_group_ids) == []
    change.unfiltered = False
    lan_connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    assert _chain(lan, f"to-{host.tap}")[-1] == "drop"
    change.security_group_ids.append(GROUP)
    lan_connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    assert list(_interface(lan_connection, host).security_group_ids) == [GROUP]


def _interface(connection: Connection, host: Host) -> InterfaceSpec:
    (interface,) = instance_of(connection, host.instance_id).spec.interfaces
    return interface


def _chain(lan: Lan, name: str) -> list[str]:
    """Rules of a chain."""
    lines = [line.strip() for line in lan.table().splitlines()]
    begin = lines.index(f"chain {name} {{")
    return lines[begin + 1 : lines.index("}", begin)]
