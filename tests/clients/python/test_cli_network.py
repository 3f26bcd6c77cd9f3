"""`virtrpc interface` and `virtrpc firewall`: what is asked of the daemon, and what is told."""

import json

import pytest
from virtrpc.cli.nic import interface
from virtrpc.cli.rule import rule
from virtrpc.v1 import firewall_pb2 as firewall
from virtrpc.v1 import interface_pb2 as messages
from virtrpc.v1.instance_pb2 import AttachedInterface, Instance, MachineState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
PORT, GROUP = "3f1c2d4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", "11111111-0000-4000-8000-000000000001"
NIC = AttachedInterface(port_id=PORT, mac_address="52:54:00:00:00:01", host_device="tap3f1c")


async def test_an_interface_is_attached_as_noted(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("AttachInterface", lambda _: messages.AttachInterfaceResponse(interface=NIC))
    noted = (
        f"bridge=br0,port={PORT},mtu=1400,address=192.0.2.7/24,address=2001:db8::7/64,group={GROUP}"
    )
    outcome = await cli("interface", "attach", WEB_1, noted, "--timeout", "5")
    assert outcome.code == 0, outcome.err
    assert all(word in outcome.out for word in (PORT, "52:54:00:00:00:01", "tap3f1c"))
    (request,) = daemon.requests["AttachInterface"]
    spec = request.interface
    assert (spec.port_id, spec.bridge.bridge, spec.mtu) == (PORT, "br0", 1400)
    assert list(spec.addresses) == ["192.0.2.7/24", "2001:db8::7/64"]
    assert list(spec.security_group_ids) == [GROUP]
    assert request.timeout.seconds == 5


async def test_a_port_is_chosen_where_none_is_noted(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("AttachInterface", lambda _: messages.AttachInterfaceResponse())
    outcome = await cli("interface", "attach", WEB_1, "user", "--validate-only")
    assert outcome.code == 0
    (request,) = daemon.requests["AttachInterface"]
    assert len(request.interface.port_id) == 36
    assert request.validate_only


@pytest.mark.parametrize(
    ("attached", "gone", "told"),
    [([], False, "detached"), ([NIC], False, "not released it yet"), ([], True, "not attached")],
)
async def test_detach_tells_what_has_come_of_it(
    cli: Cli, daemon: ScriptedDaemon, attached: list[AttachedInterface], gone: bool, told: str
) -> None:
    instance = Instance(effective=MachineState(interfaces=attached))
    response = messages.DetachInterfaceResponse(already_gone=gone, instance=instance)
    daemon.answer("DetachInterface", lambda _: response)
    outcome = await cli("interface", "detach", WEB_1, PORT)
    assert (outcome.code, told in outcome.out) == (0, True)
    assert (await cli("interface", "detach", WEB_1)).code == 2
    await cli("interface", "detach", WEB_1, "--mac", "52:54:00:AA:00:01")
    assert daemon.requests["DetachInterface"][-1].mac_address == "52:54:00:aa:00:01"


async def test_the_host_side_comes_and_goes(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("PlugInterfaces", lambda _: messages.PlugInterfacesResponse(interfaces=[NIC]))
    daemon.answer("UnplugInterfaces", lambda _: messages.UnplugInterfacesResponse(port_ids=[PORT]))
    daemon.answer("PrepareNetworks", lambda _: messages.PrepareNetworksResponse(interfaces=[NIC]))
    daemon.answer("CleanNetworksPreparation", lambda _: messages.CleanNetworksPreparationResponse())
    assert PORT in (await cli("interface", "plug", WEB_1, PORT)).out
    assert (await cli("interface", "unplug", WEB_1)).out == f"{PORT}\n"
    assert PORT in (await cli("interface", "prepare", WEB_1, "user", "bridge=br0")).out
    assert (await cli("interface", "clean", WEB_1)).out == "given up\n"
    (request,) = daemon.requests["PrepareNetworks"]
    assert len({spec.port_id for spec in request.interfaces}) == 2


async def test_policy_is_told(cli: Cli, daemon: ScriptedDaemon) -> None:
    policy = messages.GetInterfacePolicyResponse(mac_prefix="52", binding_host_id="node-1")
    daemon.answer("GetInterfacePolicy", lambda _: policy)
    outcome = await cli("interface", "policy")
    assert all(word in outcome.out for word in ("node-1", "52", "any that is not taken"))
    assert json.loads((await cli("interface", "policy", "-o", "json")).out)["mac_prefix"] == "52"


async def test_a_group_is_given_its_rules(cli: Cli, daemon: ScriptedDaemon) -> None:
    answers = [
        firewall.RefreshSecurityGroupResponse(instance_ids=[WEB_1]),
        firewall.RefreshSecurityGroupResponse(deferred=True),
        firewall.RefreshSecurityGroupResponse(superseded=True),
    ]
    daemon.answer("RefreshSecurityGroup", *(lambda _, a=a: a for a in answers))
    arguments = ("firewall", "set-group", GROUP, "--rule", "in,tcp=80-90,remote=192.0.2.0/24")
    outcome = await cli(*arguments, "--rule", "out", "--member", "192.0.2.7", "--revision", "3")
    assert outcome.out == f"in force\n{WEB_1}\n"
    (request,) = daemon.requests["RefreshSecurityGroup"]
    group = request.security_group
    assert (group.security_group_id, group.revision) == (GROUP, 3)
    assert (group.rules[0].tcp.first, group.rules[0].tcp.last) == (80, 90)
    assert list(group.member_addresses) == ["192.0.2.7"]
    assert "firewall apply" in (await cli(*arguments)).out
    assert "newer revision" in (await cli(*arguments)).out


async def test_filtering_of_an_instance(cli: Cli, daemon: ScriptedDaemon) -> None:
    found = firewall.FilteredInterface(port_id=PORT, host_device="tap3f1c", rule_count=7)
    ensured = firewall.EnsureFilteringRulesResponse(interfaces=[found])
    daemon.answer("EnsureFilteringRules", lambda _: ensured)
    daemon.answer(
        "RefreshInstanceSecurityRules", lambda _: firewall.RefreshInstanceSecurityRulesResponse()
    )
    daemon.answer("UnfilterInstance", lambda _: firewall.UnfilterInstanceResponse())
    daemon.answer("DeferFiltering", lambda _: firewall.DeferFilteringResponse())
    daemon.answer("ApplyFiltering", lambda _: firewall.ApplyFilteringResponse(instance_ids=[WEB_1]))
    assert "tap3f1c" in (await cli("firewall", "ensure", WEB_1)).out
    assert (await cli("firewall", "set-interface", WEB_1, PORT, GROUP)).out == "in force\n"
    (request,) = daemon.requests["RefreshInstanceSecurityRules"]
    assert list(request.interfaces[0].security_group_ids) == [GROUP]
    assert (await cli("firewall", "unfilter", WEB_1)).out == "removed\n"
    assert (await cli("firewall", "defer", "--timeout", "9")).code == 0
    assert daemon.requests["DeferFiltering"][0].timeout.seconds == 9
    assert (await cli("firewall", "apply")).out == f"in force\n{WEB_1}\n"


@pytest.mark.parametrize(
    "text", ["", "sideways", "in,tcp=x", "in,family=ipv5", "in,nonsense", "in,icmp=ping"]
)
def test_what_notes_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        rule(text)


def test_rules_as_they_are_noted() -> None:
    assert rule("in,icmp=8,family=ipv6").icmp.type == 8
    assert rule(f"out,protocol=112,remote={GROUP}").remote_group_id == GROUP
    assert rule("in,udp").WhichOneof("protocol") == "udp"


def test_switches_of_an_interface() -> None:
    spec = interface("ovs=br-int,vlan=7,link=down,spoofing=allowed,dns=192.0.2.53,tag=front")
    assert (spec.open_vswitch.vlan, spec.link_down, spec.port_security_disabled) == (7, True, True)
    with pytest.raises(ValueError):
        interface("bridge=br0,vlan=7")
    with pytest.raises(ValueError):
        interface("bridge=br0,link=up")
