"""What every RPC says about itself is complete and of one piece."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from virtrpc.v1 import options_pb2

from service.verbs import Verb, all_verbs

VERBS = {verb.name: verb for verb in all_verbs().values()}
MUTATIONS = [name for name, verb in VERBS.items() if verb.mutates]
PROTOS = Path(__file__).resolve().parents[2] / "protos" / "virtrpc" / "v1"
SECRET_NAME = re.compile(r"password|passphrase|token|user_data|(^|_)key$|secret")
# Its loss does no harm: the log that goes along has a gap then, and says so.
NOT_MISSED = {"virtrpc.v1.ConsolePiece.data"}
NOT_SECRET = {"page_token", "next_page_token"}


def fields(verb: Verb) -> Mapping[str, FieldDescriptor]:
    return dict(verb.request_class.DESCRIPTOR.fields_by_name)  # type: ignore[arg-type]


def fields_below(descriptor: Descriptor) -> Iterator[FieldDescriptor]:
    """All fields of a message, at any depth."""
    seen: set[str] = set()
    todo = [descriptor]
    while todo:
        message = todo.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        for field in message.fields:
            yield field
            if field.message_type is not None:
                todo.append(field.message_type)


@pytest.mark.parametrize("name", VERBS)
def test_verb_declares_its_role_and_kind(name: str) -> None:
    assert VERBS[name].role != options_pb2.ROLE_UNSPECIFIED
    assert VERBS[name].kind != options_pb2.VERB_KIND_UNSPECIFIED


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_takes_a_request_id_and_validate_only(name: str) -> None:
    request = fields(VERBS[name])
    assert request["request_id"].type == FieldDescriptor.TYPE_STRING
    assert request["request_id"].number == 100
    assert request["validate_only"].type == FieldDescriptor.TYPE_BOOL
    assert request["validate_only"].number == 101


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_says_what_becomes_of_it_when_the_daemon_dies(name: str) -> None:
    assert VERBS[name].options.recovery != options_pb2.RECOVERY_UNSPECIFIED


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.resumes])
def test_resumed_verb_needs_no_secret(name: str) -> None:
    """It is run again from the journal, which holds no secrets."""
    secret = [
        field.full_name
        for field in fields_below(VERBS[name].request_class.DESCRIPTOR)  # type: ignore[arg-type]
        if field.GetOptions().Extensions[options_pb2.secret]
    ]
    assert set(secret) <= NOT_MISSED


@pytest.mark.parametrize("name", [n for n, v in VERBS.items() if v.long_running])
def test_long_running_verb_replies_with_an_operation_and_names_its_result(name: str) -> None:
    verb = VERBS[name]
    assert verb.response_class.DESCRIPTOR.full_name == "virtrpc.v1.Operation"
    assert descriptor_pool.Default().FindMessageTypeByName(verb.options.result)


@pytest.mark.parametrize("name", [n for n, v in VERBS.items() if not v.long_running])
def test_other_verbs_name_no_result(name: str) -> None:
    assert VERBS[name].options.result == ""


@pytest.mark.parametrize("name", [n for n, v in VERBS.items() if not v.mutates])
def test_options_of_mutations_stand_at_mutations_only(name: str) -> None:
    options = VERBS[name].options
    assert not (options.preempts or options.lane or options.concurrent)
    assert options.recovery == options_pb2.RECOVERY_UNSPECIFIED


@pytest.mark.parametrize("name", MUTATIONS)
def test_lane_is_a_string_field_of_the_request(name: str) -> None:
    options = VERBS[name].options
    assert not (options.concurrent and (options.lane or options.preempts))
    if options.lane:
        assert fields(VERBS[name])[options.lane].type == FieldDescriptor.TYPE_STRING


def test_mutations_that_share_the_host_s_lane_are_those_of_the_host() -> None:
    """A verb that was forgotten in a lane of its own would exclude everything else."""
    in_host_lane = {
        name
        for name in MUTATIONS
        if not VERBS[name].options.concurrent
        and not VERBS[name].options.lane
        and "instance_id" not in fields(VERBS[name])
    }
    assert in_host_lane == {"SetHostEnabled", "SetMaintenanceMode", "HostPowerAction"}


@pytest.mark.parametrize("name", VERBS)
def test_streaming_verb_is_declared_as_a_stream(name: str) -> None:
    verb = VERBS[name]
    if verb.client_streaming or verb.server_streaming:
        assert verb.kind == options_pb2.VERB_KIND_STREAM


@pytest.mark.parametrize("name", VERBS)
def test_field_with_the_name_of_a_secret_is_marked_secret(name: str) -> None:
    verb = VERBS[name]
    unmarked = {
        field.full_name
        for message in (verb.request_class, verb.response_class)
        for field in fields_below(message.DESCRIPTOR)  # type: ignore[arg-type]
        if SECRET_NAME.search(field.name)
        and field.name not in NOT_SECRET
        and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
        and not field.containing_type.GetOptions().map_entry  # type: ignore[union-attr]
        and not field.GetOptions().Extensions[options_pb2.secret]
    }
    assert unmarked == set()


@pytest.mark.parametrize("path", sorted(PROTOS.glob("*.proto")), ids=lambda path: str(path.name))
def test_everything_declared_is_preceded_by_a_comment(path: Path) -> None:
    """Comments specify the behaviour: RPCs, messages, fields and values all have one."""
    declaration = re.compile(r"^\s*(rpc|message|enum|service)\s|^\s*[\w.<>, ]+ \w+ = \d+\s*[\[;]")
    uncommented = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[1:], start=1):
        if declaration.match(line) and "reserved" not in line:
            before = lines[number - 1].strip()
            if not before.startswith("//"):
                uncommented.append(f"{number + 1}: {line.strip()}")
    assert uncommented == []
