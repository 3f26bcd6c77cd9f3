"""A controller: calls verbs on one instance, or image, and looks at what became of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2, operation_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation

from service.verbs import Verb, all_verbs
from tests.crash.cases import Case, Fields, small_spec
from tests.daemon import Connection

VERBS = {verb.name: verb for verb in all_verbs().values()}
TIMEOUT_S = 60.0


class Caller:
    """Calls verbs on the instance of an id, which is also the key of other things it makes."""

    def __init__(
        self, connection: Connection, *, backend: str, instance_id: str, sources: Path = Path()
    ) -> None:
        self.connection = connection
        self.backend = backend
        self.instance_id = instance_id
        self._sources = sources
        self.turn = 0
        """Of several cases that are tried on the instance."""

    def prepare(self, case: Case) -> None:
        """Brings the host to where the case begins."""
        if self._sources != Path():
            for overlay in self._sources.glob(f"{self.instance_id}.*"):
                overlay.unlink()
            for name in (self.instance_id, f"{self.instance_id}.new"):
                (self._sources / name).write_bytes(bytes(1 << 20))
        for earlier in case.before:
            self._invoke_to_the_end(earlier.verb, fields=earlier.fields, spec=earlier.spec)

    def call_case(self, case: Case, *, request_id: str) -> Operation | None:
        """Calls the case's verb; gives the operation of a long-running one."""
        reply = self.answer(case, request_id=request_id)
        return reply if isinstance(reply, Operation) else None

    def answer(self, case: Case, **more: Any) -> Message:
        """What the case's verb answers; of a stream the first message."""
        return self._invoke(
            case.verb, fields={**case.fields, **more}, spec=case.spec, more=case.more
        )

    def call(self, name: str, **fields: Any) -> Message:
        """Calls a verb, waits for its end, which is a success, and gives its reply."""
        return self._invoke_to_the_end(name, fields=fields, spec={})

    def ended(self, operation_id: str) -> Operation:
        """The operation when it has ended."""
        operation = self.connection.operations.WaitOperation(
            operation_pb2.WaitOperationRequest(operation_id=operation_id), timeout=TIMEOUT_S
        )
        assert operation.done, operation
        return operation

    def instance(self) -> Instance | None:
        """The instance as the daemon lists it; None where it does not."""
        request = instance_pb2.ListInstancesRequest(
            include_soft_deleted=True, view=instance_pb2.INSTANCE_VIEW_FULL
        )
        reply = self.connection.instances.ListInstances(request, timeout=TIMEOUT_S)
        return next((i for i in reply.instances if i.instance_id == self.instance_id), None)

    def _invoke_to_the_end(self, name: str, *, fields: Fields, spec: Fields) -> Message:
        reply = self._invoke(name, fields=fields, spec=spec)
        if isinstance(reply, Operation):
            reply = self.ended(reply.operation_id)
            assert not reply.HasField("error"), reply
        return reply

    def _invoke(
        self, name: str, *, fields: Fields, spec: Fields, more: Sequence[Fields] = ()
    ) -> Message:
        verb = VERBS[name]
        request = self._request(verb, fields)
        if isinstance(request, instance_pb2.SpawnInstanceRequest):
            request.spec.CopyFrom(small_spec(self.backend, self.instance_id, spec))
        return self._sent(verb, request, [self._request(verb, fields) for fields in more])

    def _sent(self, verb: Verb, first: Message, more: Sequence[Message]) -> Message:
        """The first message of the answer."""
        sides = (verb.client_streaming, verb.server_streaming)
        kind = "_".join("stream" if streams else "unary" for streams in sides)
        method = getattr(self.connection.channel, kind)(
            verb.path,
            request_serializer=verb.request_class.SerializeToString,
            response_deserializer=verb.response_class.FromString,
        )
        answer = method(iter([first, *more]) if verb.client_streaming else first, timeout=TIMEOUT_S)
        if not verb.server_streaming:
            return cast(Message, answer)
        try:
            return cast(Message, next(answer))
        finally:
            answer.cancel()

    def _request(self, verb: Verb, fields: Fields) -> Message:
        texts: dict[str, object] = {
            "key": self.instance_id,
            "sources": self._sources,
            "turn": self.turn,
        }
        if "{operation}" in str(fields):
            texts["operation"] = self._newest_operation()
        request = verb.request_class(**_filled(fields, **texts))
        if "instance_id" in verb.request_class.DESCRIPTOR.fields_by_name:
            setattr(request, "instance_id", self.instance_id)  # noqa: B010 - of many classes
        return request

    def _newest_operation(self) -> str:
        request = operation_pb2.ListOperationsRequest(instance_id=self.instance_id)
        reply = self.connection.operations.ListOperations(request, timeout=TIMEOUT_S)
        return reply.operations[0].operation_id if reply.operations else self.instance_id


def _filled(value: Any, **texts: object) -> Any:
    """The value with {key} and the like replaced in its texts, at any depth."""
    if isinstance(value, str):
        return value.format(**texts)
    if isinstance(value, Mapping):
        return {name: _filled(part, **texts) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, **texts) for part in value]
    return value
