"""The truth in memory: ordered, complete, stale when it must be, readable from any thread."""

import time

import pytest
from virtrpc.v1 import instance_pb2, types_pb2
from virtrpc.v1.diagnostics_pb2 import InstanceDiagnostics
from virtrpc.v1.instance_pb2 import Instance, InstanceView

from backends.contract import Sample
from backends.errors import InstanceNotFoundError
from service.errors import StartingError
from service.truth import Truth

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
RUNNING = types_pb2.POWER_STATE_RUNNING
PAUSED = types_pb2.POWER_STATE_PAUSED


def instance(instance_id: str, state: "types_pb2.PowerState.ValueType" = RUNNING) -> Instance:
    made = Instance(instance_id=instance_id, name=f"name-{instance_id[0]}", power_state=state)
    made.spec.flavor.vcpus = 1
    return made


def sample(instance_id: str) -> Sample:
    return Sample(instance_id=instance_id, cpu_time_ns=5, diagnostics=InstanceDiagnostics())


@pytest.fixture
def truth() -> Truth:
    """B and C, as a hypervisor listed them."""
    listed = Truth()
    listed.replace_all([instance(C), instance(B)])
    listed.connected()
    return listed


def ids(truth: Truth) -> list[str]:
    return [record.instance_id for record in truth.ordered()]


def shown(truth: Truth, instance_id: str, view: "InstanceView.ValueType") -> Instance:
    raw = truth.get(instance_id).serialised(view)
    return instance_pb2.GetInstanceResponse.FromString(raw).instance


def test_instances_are_ordered_by_id_however_they_come(truth: Truth) -> None:
    truth.put(instance(A))
    assert ids(truth) == [A, B, C]
    truth.remove(B)
    assert ids(truth) == [A, C]
    assert A in truth
    assert B not in truth


def test_what_is_not_listed_anew_is_gone(truth: Truth) -> None:
    truth.replace_all([instance(A), instance(C)])
    assert ids(truth) == [A, C]


def test_before_the_first_listing_nobody_can_say_that_an_instance_is_unknown() -> None:
    empty = Truth()
    with pytest.raises(StartingError):
        empty.get(A)
    empty.replace_all([])
    with pytest.raises(InstanceNotFoundError):
        empty.get(A)


def test_removal_of_what_is_not_there_is_nothing(truth: Truth) -> None:
    truth.remove(A)
    assert ids(truth) == [B, C]


def test_bytes_follow_every_change(truth: Truth) -> None:
    basic = InstanceView.INSTANCE_VIEW_BASIC
    assert shown(truth, B, basic).power_state == RUNNING
    truth.put(instance(B, PAUSED))
    assert shown(truth, B, basic).power_state == PAUSED
    truth.operation_goes_on(B, "operation")
    assert shown(truth, B, basic).operation_id == "operation"
    truth.sampled([sample(B)], at_ns=1)
    assert shown(truth, B, basic).cpu_time_ns == 5


def test_views_leave_the_instance_itself_whole(truth: Truth) -> None:
    assert shown(truth, B, InstanceView.INSTANCE_VIEW_NAMES) == Instance(
        instance_id=B, name="name-b"
    )
    assert not shown(truth, B, InstanceView.INSTANCE_VIEW_BASIC).HasField("spec")
    assert shown(truth, B, InstanceView.INSTANCE_VIEW_FULL).HasField("spec")


def test_running_operation_is_told_also_of_an_instance_that_comes_later(truth: Truth) -> None:
    truth.operation_goes_on(A, "spawn")
    truth.put(instance(A))
    assert truth.get(A).instance.operation_id == "spawn"
    truth.put(instance(A, PAUSED))
    assert truth.get(A).instance.operation_id == "spawn"
    truth.operation_ended(A, "spawn")
    assert truth.get(A).instance.operation_id == ""


def test_operation_is_told_until_it_ends_whatever_ends_beside_it(truth: Truth) -> None:
    """Verbs that need no lane run beside the one that has it; destroys wait behind it."""
    truth.operation_goes_on(B, "copy")
    truth.operation_goes_on(B, "rules")
    truth.operation_goes_on(B, "destroy")
    truth.operation_ended(B, "rules")
    assert truth.get(B).instance.operation_id == "copy"
    truth.operation_ended(B, "copy")
    assert truth.get(B).instance.operation_id == "destroy"
    truth.operation_ended(B, "destroy")
    assert truth.get(B).instance.operation_id == ""


def test_last_sample_outlives_a_new_listing(truth: Truth) -> None:
    truth.sampled([sample(B)], at_ns=7)
    truth.replace_all([instance(B), instance(C)])
    assert truth.get(B).instance.cpu_time_ns == 5
    assert truth.get(B).instance.cpu_time_at.ToNanoseconds() == 7


def test_sample_of_an_instance_that_has_gone_is_dropped(truth: Truth) -> None:
    truth.sampled([sample(A)], at_ns=1)
    assert ids(truth) == [B, C]


def test_facts_stay_when_the_hypervisor_goes_and_say_how_old_they_are(truth: Truth) -> None:
    assert not truth.freshness().stale
    truth.disconnected()
    lost_at = time.time_ns()
    first = truth.freshness()
    truth.disconnected()
    assert ids(truth) == [B, C]
    assert first.stale
    assert first.observed_at.ToNanoseconds() <= lost_at
    assert truth.freshness().observed_at == first.observed_at
    truth.connected()
    assert truth.freshness().observed_at.ToNanoseconds() >= lost_at


def test_all_can_be_gone_through_while_it_changes(truth: Truth) -> None:
    """The metrics endpoint reads it on a thread of its own."""
    going_through = iter(truth.all())
    first = next(going_through)
    truth.put(instance(A))
    truth.remove(B)
    truth.remove(C)
    assert {first.instance_id, *(i.instance_id for i in going_through)} == {B, C}


def test_count_by_state(truth: Truth) -> None:
    truth.put(instance(A, PAUSED))
    assert truth.count_by_state() == {RUNNING: 2, PAUSED: 1}
