"""From bytes to a request that keeps its rules, or a refusal that says where it does not."""

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.spec_pb2 import BlockDevice, RbdVolume, VolumeConnection
from virtrpc.v1.volume_pb2 import AttachVolumeRequest

from backends.errors import BlockedError, ContractError, InvalidArgumentError
from service.validation import MOST_ELEMENTS, check, parse
from service.verbs import all_verbs

VERBS = {verb.name: verb for verb in all_verbs().values()}
SPAWN = VERBS["SpawnInstance"]
INSTANCE_ID = "aaaaaaaa-1111-4111-8111-111111111111"


def good_spawn() -> pb.SpawnInstanceRequest:
    request = pb.SpawnInstanceRequest(instance_id=INSTANCE_ID)
    request.spec.flavor.vcpus, request.spec.flavor.memory_mib = 1, 96
    return request


def fields_at_fault(request: Message) -> list[str]:
    with pytest.raises(ContractError) as caught:
        check(request)
    return [violation.field for violation in caught.value.violations]


def test_good_request_comes_through_unchanged() -> None:
    request = good_spawn()
    assert parse(SPAWN, request.SerializeToString()) == request


def test_id_comes_out_in_lower_case() -> None:
    request = good_spawn()
    request.instance_id = INSTANCE_ID.upper()
    assert parse(SPAWN, request.SerializeToString()) == good_spawn()


def test_one_fault_is_an_invalid_argument_with_its_path() -> None:
    request = good_spawn()
    request.spec.flavor.vcpus = 0
    with pytest.raises(InvalidArgumentError) as caught:
        parse(SPAWN, request.SerializeToString())
    assert caught.value.field == "spec.flavor.vcpus"
    assert "spec.flavor.vcpus" in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    request = good_spawn()
    request.instance_id = "x"
    request.spec.flavor.vcpus = 0
    request.spec.name = "-"
    with pytest.raises(BlockedError) as caught:
        parse(SPAWN, request.SerializeToString())
    assert caught.value.reason == "INVALID_REQUEST"
    told = {violation.field for violation in caught.value.violations}
    assert told == {"instance_id", "spec.flavor.vcpus", "spec.name"}


def test_path_tells_which_element_of_a_list_or_map() -> None:
    request = good_spawn()
    request.spec.labels["key"] = "\x00"
    assert fields_at_fault(request) == ['spec.labels["key"]']
    request = good_spawn()
    for port_id in (INSTANCE_ID, "x"):
        request.spec.interfaces.add(port_id=port_id, user={})
    assert fields_at_fault(request) == ["spec.interfaces[1].port_id"]


CEPH = {"monitors": ["ceph"], "pool": "p", "image": "i"}


def of_ceph(**fields: Any) -> AttachVolumeRequest:
    volume = VolumeConnection(volume_id=INSTANCE_ID, rbd=RbdVolume(**{**CEPH, **fields}))
    return AttachVolumeRequest(instance_id=INSTANCE_ID, device=BlockDevice(volume=volume))


def test_what_names_a_ceph_image_is_taken() -> None:
    check(of_ceph(monitors=["[::1]:6789", "ceph-1:1"]))
    check(of_ceph(username="joe", key="AAAA"))


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        *(
            ({"monitors": [monitor]}, ".monitors[0]")
            for monitor in ("h:99999", "::1", "[::1", ":1", "h:", "-rf", "a" * 64, "a:b:c")
        ),
        *(({"username": "joe", "key": key}, ".key") for key in ("A", "AAA", "A=AA", "é")),
        ({"username": "joe"}, ""),
        ({"key": "AAAA"}, ""),
    ],
)
def test_what_names_no_ceph_image_is_refused(fields: dict[str, Any], at: str) -> None:
    """A port that is none, or half a byte of a key, broke the daemon's own reading of them."""
    assert fields_at_fault(of_ceph(**fields)) == [f"device.volume.rbd{at}"]


def test_more_elements_than_any_rule_allows_are_refused_before_they_are_looked_at() -> None:
    """Two million unknown states of 2 MB kept the daemon from everybody for minutes."""
    request = pb.ListInstancesRequest(power_states=[99] * (MOST_ELEMENTS + 1))  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="more than 20000 elements") as caught:
        check(request)
    assert caught.value.field == "power_states"


def test_elements_of_nested_lists_count_together() -> None:
    request = good_spawn()
    for _ in range(MOST_ELEMENTS // 1000 + 1):
        request.spec.interfaces.add().addresses.extend(["::1"] * 1000)
    with pytest.raises(InvalidArgumentError, match="more than 20000 elements") as caught:
        check(request)
    assert caught.value.field == "spec.interfaces"


def test_of_a_large_request_one_fault_is_told() -> None:
    request = pb.ListInstancesRequest(power_states=[99] * 2000)  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError) as caught:
        check(request)
    assert caught.value.field.startswith("power_states")


def test_sentence_does_not_repeat_the_value() -> None:
    """It may be a secret."""
    request = good_spawn()
    request.spec.guest.admin_password = "canary\n"  # noqa: S105 - a test
    with pytest.raises(InvalidArgumentError) as caught:
        check(request)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", VERBS)
def test_empty_request_of_every_verb_is_judged(name: str) -> None:
    """The rules of every message compile: one that does not would fail every call."""
    try:
        parse(VERBS[name], b"")
    except (InvalidArgumentError, BlockedError) as error:
        for violation in error.violations:
            assert violation.message.startswith(f"{violation.field}: " if violation.field else "")
            assert not violation.message.startswith(":")


@given(st.binary(max_size=200), st.sampled_from(sorted(VERBS)))
def test_any_bytes_are_a_request_or_an_invalid_argument(raw: bytes, name: str) -> None:
    verb = VERBS[name]
    try:
        request = parse(verb, raw)
    except (InvalidArgumentError, BlockedError) as error:
        assert error.reason == "INVALID_REQUEST"
    else:
        assert isinstance(request, verb.request_class)
