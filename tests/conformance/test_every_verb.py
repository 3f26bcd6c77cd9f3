"""What holds of every verb, for each one that is implemented, on every backend.

Which of it applies is decided from the descriptors; the requests are those of tests/crash/cases.py.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence

import grpc
import pytest
from google.protobuf.message import Message
from virtrpc.v1 import host_pb2
from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation
from virtrpc.v1.types_pb2 import Error

from backends.redaction import redacted
from service.verbs import all_verbs
from tests.conformance.stage import Stage, facts
from tests.crash.caller import VERBS, Caller
from tests.crash.cases import CASES, READS, Case
from tests.crash.verdict import operations
from tests.daemon import DaemonProcess
from tests.refusals import refusal_of, refused

ALL = (*CASES, *READS)
NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
FAILED_PRECONDITION: int = grpc.StatusCode.FAILED_PRECONDITION.value[0]


def of_an_instance(case: Case) -> bool:
    return "instance_id" in VERBS[case.verb].request_class.DESCRIPTOR.fields_by_name


def has_check(case: Case) -> bool:
    return "validate_only" in VERBS[case.verb].request_class.DESCRIPTOR.fields_by_name


def chains() -> dict[str, list[Case]]:
    """Cases that are refused after the same verbs, by the names of these."""
    found: dict[str, list[Case]] = {}
    for case in ALL:
        if case.wrong:
            found.setdefault(" ".join(map(str, case.wrong)), []).append(case)
    return found


@pytest.fixture(scope="module")
def stage(daemon: DaemonProcess) -> Iterator[Stage]:
    with daemon.connect() as connection, Stage(daemon, connection) as made:
        yield made


def test_every_implemented_verb_has_a_case(stage: Stage, daemon: DaemonProcess) -> None:
    with daemon.connect() as connection:
        reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=10)
    supported = {capability.name for capability in reply.capabilities if capability.supported}
    implemented = {verb.name for verb in all_verbs().values() if verb.capability in supported}
    missing = implemented - {case.verb for case in ALL}
    assert missing == set(), "a line in CASES or READS of tests/crash/cases.py"


@pytest.mark.parametrize("case", ALL, ids=str)
def test_case_says_what_its_verb_calls_for(case: Case) -> None:
    verb = VERBS[case.verb]
    assert (case in CASES) == verb.mutates
    if verb.mutates and of_an_instance(case):
        assert case.wrong is not None, "in which state is it refused?"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_change_is_checked_made_once_and_its_repeat_told_the_outcome(
    stage: Stage, case: Case
) -> None:
    if is_missing(stage, case) or is_forbidden(stage, case):
        return
    with stage.after(case.before, case) as caller:
        before = everything(stage, caller, case)
        if case.alone:
            for check in checks(case):
                assert refusal_of_call(caller, case, check).reason == case.alone
            return
        caller.answer(case, validate_only=True)
        assert everything(stage, caller, case) == before
        request_id = f"r-{uuid.uuid4()}"
        first = redacted(outcome(caller, case, request_id))
        # Secrets are told once: nobody keeps them.
        assert redacted(outcome(caller, case, request_id)) == first
        made = [o for o in operations(caller.connection, case.verb) if o.request_id == request_id]
        assert [operation.state for operation in made] == [OPERATION_STATE_SUCCEEDED]


@pytest.mark.parametrize("case", READS, ids=str)
def test_read_is_answered_again_and_again(stage: Stage, case: Case) -> None:
    if is_missing(stage, case):
        return
    with stage.after(case.before, case) as caller:
        for _ in range(2):
            caller.answer(case)


@pytest.mark.parametrize("case", [case for case in ALL if of_an_instance(case)], ids=str)
def test_instance_that_does_not_exist(stage: Stage, case: Case) -> None:
    if is_missing(stage, case):
        return
    with stage.after(()) as caller:
        if not case.unknown:
            outcome(caller, case, "")
            return
        for check in checks(case):
            error = refusal_of_call(caller, case, check)
            code = FAILED_PRECONDITION if case.unknown_is_state else NOT_FOUND
            assert (error.code, error.reason) == (code, case.unknown)
            if case.unknown_is_state:
                continue
            assert error.metadata["instance_id"] == caller.instance_id


@pytest.mark.parametrize("state", chains())
def test_wrong_state_is_refused_and_nothing_changed(stage: Stage, state: str) -> None:
    cases = [case for case in chains()[state] if not is_missing(stage, case)]
    with stage.after(cases[0].wrong or ()) as caller:
        before = facts(caller)
        for case in cases:
            for check in checks(case):
                error = refusal_of_call(caller, case, check)
                assert (error.code, error.reason) == (FAILED_PRECONDITION, case.refusal), case
        assert facts(caller) == before


def is_missing(stage: Stage, case: Case) -> bool:
    """The backend does not do it here, and says so."""
    if stage.can(case):
        return False
    with refused(grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY_MISSING"):
        stage.nobody().answer(case)
    return True


def is_forbidden(stage: Stage, case: Case) -> bool:
    """The daemon refuses it, as nobody has told it otherwise."""
    if not case.forbidden:
        return False
    for check in checks(case):
        assert refusal_of_call(stage.nobody(), case, check).reason == case.forbidden
    return True


def checks(case: Case) -> Sequence[Mapping[str, bool]]:
    """Fields with which a verb is called to be refused: as it is, and only to be checked."""
    return ({}, {"validate_only": True}) if has_check(case) else ({},)


def refusal_of_call(caller: Caller, case: Case, fields: Mapping[str, bool]) -> Error:
    """Why a call was refused: by its status, or as the error of its operation."""
    try:
        reply = caller.answer(case, **fields)
    except grpc.RpcError as error:
        told = refusal_of(error)
        assert told.code is not None
        return Error(code=told.code.value[0], reason=told.reason, metadata=told.metadata)
    assert VERBS[case.verb].long_running, f"{case} was answered"
    assert isinstance(reply, Operation)
    return caller.ended(reply.operation_id).error


def outcome(caller: Caller, case: Case, request_id: str) -> Message:
    """The reply; of a long-running verb its operation at its end, which is a success."""
    common = {"request_id": request_id} if case in CASES else {}
    reply = caller.answer(case, **common)
    if VERBS[case.verb].long_running and isinstance(reply, Operation):
        reply = caller.ended(reply.operation_id)
        assert reply.state == OPERATION_STATE_SUCCEEDED, reply
    return reply


def everything(stage: Stage, caller: Caller, case: Case) -> object:
    """All that a check must not change."""
    begun = [o.operation_id for o in operations(caller.connection, case.verb)]
    return facts(caller), stage.images(caller), begun
