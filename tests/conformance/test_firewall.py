"""Security groups and filtering, as far as it can be told without a packet."""

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from virtrpc.v1 import firewall_pb2 as pb
from virtrpc.v1 import instance_pb2 as instances
from virtrpc.v1.spec_pb2 import BridgeNetwork, InterfaceSpec

from tests.conformance.conftest import Guest, state_of
from tests.conftest import MakeDaemon
from tests.daemon import Connection
from tests.events_seen import cursor_now
from tests.instances import TIMEOUT_S, small_spec, spawned
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
NIL = "00000000-0000-0000-0000-000000000000"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
IN = pb.TRAFFIC_DIRECTION_INGRESS
Rule = pb.SecurityGroupRule


@pytest.fixture
def group_id(connection: Connection) -> Iterator[str]:
    """A group that is forgotten after the test."""
    made = str(uuid.uuid4())
    yield made
    refresh(connection, security_group_id=made, revision=1 << 62)


def refresh(connection: Connection, **fields: Any) -> pb.RefreshSecurityGroupResponse:
    group = pb.SecurityGroup(**fields)
    request = pb.RefreshSecurityGroupRequest(security_group=group)
    reply: pb.RefreshSecurityGroupResponse = connection.firewall.RefreshSecurityGroup(
        request, timeout=TIMEOUT_S
    )
    return reply


def test_an_older_revision_changes_nothing(connection: Connection, group_id: str) -> None:
    assert not refresh(connection, security_group_id=group_id, revision=2).superseded
    assert refresh(connection, security_group_id=group_id, revision=1).superseded is False
    kept = [Rule(direction=IN)]
    refresh(connection, security_group_id=group_id, revision=5, rules=kept)
    assert refresh(connection, security_group_id=group_id, revision=4).superseded
    assert not refresh(connection, security_group_id=group_id, revision=5, rules=kept).superseded


BAD: list[tuple[dict[str, Any], str]] = [
    ({"security_group_id": "web"}, "security_group.security_group_id"),
    ({"security_group_id": NIL}, "security_group.security_group_id"),
    ({"rules": [{"direction": 0}]}, "security_group.rules[0].direction"),
    ({"rules": [{"direction": 7}]}, "security_group.rules[0].direction"),
    ({"rules": [{"direction": 1, "family": 9}]}, "security_group.rules[0].family"),
    ({"rules": [{"direction": 1, "tcp": {"first": 9, "last": 8}}]},
     "security_group.rules[0].tcp"),
    ({"rules": [{"direction": 1, "udp": {"last": 8}}]}, "security_group.rules[0].udp"),
    ({"rules": [{"direction": 1, "tcp": {"first": 65536}}]},
     "security_group.rules[0].tcp.first"),
    ({"rules": [{"direction": 1, "icmp": {"code": 1}}]}, "security_group.rules[0].icmp"),
    ({"rules": [{"direction": 1, "icmp": {"type": 256}}]}, "security_group.rules[0].icmp.type"),
    ({"rules": [{"direction": 1, "ip_protocol": 6}]}, "security_group.rules[0].ip_protocol"),
    ({"rules": [{"direction": 1, "remote_cidr": "192.0.2.0"}]},
     "security_group.rules[0].remote_cidr"),
    ({"rules": [{"direction": 1, "remote_cidr": "2001:db8::/32"}]}, "security_group.rules[0]"),
    ({"rules": [{"direction": 1, "remote_cidr": "192.0.2.0/24; drop"}]},
     "security_group.rules[0].remote_cidr"),
    ({"rules": [{"direction": 1, "remote_group_id": "x"}]},
     "security_group.rules[0].remote_group_id"),
    ({"rules": [{"direction": 1, "remote_group_id": NIL}]}, "security_group.security_group_id"),
    ({"member_addresses": ["192.0.2.300"]}, "security_group.member_addresses[0]"),
    ({"member_addresses": ["192.0.2.1", "192.0.2.1"]}, "security_group.member_addresses"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field"), BAD, ids=[str(fields) for fields, _ in BAD])
def test_a_group_that_cannot_be_meant_is_refused(
    connection: Connection, fields: dict[str, Any], field: str
) -> None:
    with refused(INVALID) as refusal:
        refresh(connection, **{"security_group_id": UNKNOWN, **fields})
    assert field in refusal.fields


def test_the_host_takes_back_the_group_that_nobody_needs(
    connection: Connection, group_id: str
) -> None:
    refresh(connection, security_group_id=group_id, rules=[Rule(direction=IN)])
    ensure = pb.EnsureFilteringRulesRequest(instance_id=UNKNOWN, interfaces=[bridged(group_id)])
    ensure.validate_only = True
    connection.firewall.EnsureFilteringRules(ensure, timeout=TIMEOUT_S)
    refresh(connection, security_group_id=group_id)


def bridged(*group_ids: str) -> InterfaceSpec:
    return InterfaceSpec(
        port_id="3f1c2d4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f",
        bridge=BridgeNetwork(bridge="br0"),
        security_group_ids=group_ids,
    )


def test_rules_stand_before_the_instance_comes_and_go_with_it(
    connection: Connection, group_id: str
) -> None:
    other = str(uuid.uuid4())
    group = pb.SecurityGroup(security_group_id=group_id, rules=[Rule(direction=IN)] * 2)
    ensure = pb.EnsureFilteringRulesRequest(
        instance_id=UNKNOWN, interfaces=[bridged(group_id, other)], security_groups=[group]
    )
    for _ in range(2):
        (found,) = connection.firewall.EnsureFilteringRules(ensure, timeout=TIMEOUT_S).interfaces
        assert found.port_id == bridged().port_id
        assert list(found.security_group_ids) == [group_id, other]
        assert list(found.unknown_group_ids) == [other]
        assert found.rule_count == 2
    concerned = refresh(connection, security_group_id=group_id, rules=[Rule(direction=IN)])
    assert list(concerned.instance_ids) == [UNKNOWN]
    unfilter = pb.UnfilterInstanceRequest(instance_id=UNKNOWN)
    assert not connection.firewall.UnfilterInstance(unfilter, timeout=TIMEOUT_S).already_gone
    assert connection.firewall.UnfilterInstance(unfilter, timeout=TIMEOUT_S).already_gone
    assert not refresh(connection, security_group_id=group_id, revision=1).instance_ids


def test_nothing_is_ensured_for_nobody(connection: Connection) -> None:
    ensure = pb.EnsureFilteringRulesRequest(instance_id=UNKNOWN)
    with refused(NOT_FOUND, "INSTANCE_NOT_FOUND"):
        connection.firewall.EnsureFilteringRules(ensure, timeout=TIMEOUT_S)


def test_a_running_machine_is_not_left_unprotected(connection: Connection, guest: Guest) -> None:
    unfilter = pb.UnfilterInstanceRequest(instance_id=guest.instance_id)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
        connection.firewall.UnfilterInstance(unfilter, timeout=TIMEOUT_S)


def test_groups_of_ports_that_are_not_there_are_refused(
    connection: Connection, guest: Guest
) -> None:
    request = pb.RefreshInstanceSecurityRulesRequest(instance_id=UNKNOWN)
    with refused(NOT_FOUND, "INSTANCE_NOT_FOUND"):
        connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    request.instance_id = guest.instance_id
    request.interfaces.add(port_id=UNKNOWN)
    with refused(NOT_FOUND, "PORT_NOT_FOUND") as refusal:
        connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    assert refusal.fields == ["interfaces[0].port_id"]
    (own,) = state_of(connection, guest.instance_id).effective.interfaces
    request.interfaces[0].port_id = own.port_id
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING") as refusal:
        connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
    assert refusal.metadata["capability"] == "security_groups"


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
def test_groups_of_an_interface_change_with_its_specification(
    connection: Connection, group_id: str
) -> None:
    spec = small_spec(backend="fake")
    spec.interfaces.append(bridged(group_id))
    with spawned(connection, spec) as instance_id:
        request = pb.RefreshInstanceSecurityRulesRequest(instance_id=instance_id)
        change = request.interfaces.add(port_id=spec.interfaces[0].port_id)
        for unfiltered, groups in ((True, []), (False, [NIL])):
            change.unfiltered = unfiltered
            for _ in range(2):
                connection.firewall.RefreshInstanceSecurityRules(request, timeout=TIMEOUT_S)
            (interface,) = state_of(connection, instance_id).spec.interfaces
            assert list(interface.security_group_ids) == groups


def test_a_batch_is_told_and_ended(connection: Connection, group_id: str) -> None:
    connection.firewall.DeferFiltering(pb.DeferFilteringRequest(), timeout=TIMEOUT_S)
    later = pb.DeferFilteringRequest()
    later.timeout.FromSeconds(600)
    end = connection.firewall.DeferFiltering(later, timeout=TIMEOUT_S).apply_at
    later.timeout.FromSeconds(1)
    assert connection.firewall.DeferFiltering(later, timeout=TIMEOUT_S).apply_at == end
    assert refresh(connection, security_group_id=group_id, rules=[Rule(direction=IN)]).deferred
    for _ in range(2):
        reply = connection.firewall.ApplyFiltering(pb.ApplyFilteringRequest(), timeout=TIMEOUT_S)
        assert not reply.instance_ids
    assert not refresh(connection, security_group_id=group_id).deferred


def test_more_groups_than_a_host_keeps_are_refused(make_daemon: MakeDaemon) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        rule = Rule(direction=IN)
        for start in range(0, 4096, 256):
            groups = [
                pb.SecurityGroup(security_group_id=str(uuid.UUID(int=start + n + 1)), rules=[rule])
                for n in range(256)
            ]
            ensure = pb.EnsureFilteringRulesRequest(
                instance_id=UNKNOWN, interfaces=[bridged()], security_groups=groups
            )
            connection.firewall.EnsureFilteringRules(ensure, timeout=TIMEOUT_S)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_GROUPS"):
            refresh(connection, security_group_id=UNKNOWN, rules=[rule])


VALIDATED: list[tuple[str, dict[str, Any]]] = [
    ("RefreshSecurityGroup", {"security_group": {"security_group_id": UNKNOWN}}),
    ("EnsureFilteringRules", {"instance_id": UNKNOWN, "interfaces": [bridged()]}),
    ("UnfilterInstance", {"instance_id": UNKNOWN}),
    ("DeferFiltering", {}),
    ("ApplyFiltering", {}),
]


@pytest.mark.parametrize(("verb", "fields"), VALIDATED, ids=[verb for verb, _ in VALIDATED])
def test_validate_only_changes_nothing(
    connection: Connection, verb: str, fields: dict[str, Any]
) -> None:
    cursor = cursor_now(connection)
    request = getattr(pb, f"{verb}Request")(validate_only=True, **fields)
    getattr(connection.firewall, verb)(request, timeout=TIMEOUT_S)
    assert cursor_now(connection) == cursor
    listed = connection.instances.ListInstances(instances.ListInstancesRequest())
    assert UNKNOWN not in {instance.instance_id for instance in listed.instances}
