"""A controller: calls verbs on one instance and looks at what became of it."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2, operation_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation

from service.verbs import all_verbs
from tests.crash.cases import Case, small_spec
from tests.daemon import Connection

VERBS = {verb.name: verb for verb in all_verbs().values()}
TIMEOUT_S = 60.0


class Caller:
    """Calls verbs on one instance of a daemon."""

    def __init__(self, connection: Connection, *, backend: str, instance_id: str) -> None:
        self.connection = connection
        self.backend = backend
        self.instance_id = instance_id

    def prepare(self, case: Case) -> None:
        """Brings the instance to where the case begins."""
        for name in case.before:
            self.call(name, labels=case.labels)

    def call_case(self, case: Case, *, request_id: str) -> Operation | None:
        """Calls the case's verb; gives the operation of a long-running one."""
        fields = {**case.fields, "request_id": request_id}
        reply = self.invoke(case.verb, labels=case.labels, fields=fields)
        return reply if isinstance(reply, Operation) else None

    def call(self, name: str, *, labels: Mapping[str, str] | None = None, **fields: Any) -> Message:
        """Calls a verb, waits for its end, which is a success, and gives its reply."""
        reply = self.invoke(name, labels=labels or {}, fields=fields)
        if isinstance(reply, Operation):
            reply = self.ended(reply.operation_id)
            assert not reply.HasField("error"), reply
        return reply

    def invoke(self, name: str, *, labels: Mapping[str, str], fields: Mapping[str, Any]) -> Message:
        """Calls a verb as it is."""
        request = VERBS[name].request_class(instance_id=self.instance_id, **fields)
        if isinstance(request, instance_pb2.SpawnInstanceRequest):
            request.spec.CopyFrom(small_spec(self.backend, self.instance_id, labels))
        method: Callable[..., Message] = getattr(self.connection.instances, name)
        return method(request, timeout=TIMEOUT_S)

    def ended(self, operation_id: str) -> Operation:
        """The operation when it has ended."""
        operation = self.connection.operations.WaitOperation(
            operation_pb2.WaitOperationRequest(operation_id=operation_id), timeout=TIMEOUT_S
        )
        assert operation.done, operation
        return operation

    def operations(self, verb: str) -> list[Operation]:
        """All operations of a verb on the instance."""
        request = operation_pb2.ListOperationsRequest(instance_id=self.instance_id, verb=verb)
        return list(
            self.connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations
        )

    def instance(self) -> Instance | None:
        """The instance as the daemon lists it; None where it does not."""
        reply = self.connection.instances.ListInstances(
            instance_pb2.ListInstancesRequest(), timeout=TIMEOUT_S
        )
        return next((i for i in reply.instances if i.instance_id == self.instance_id), None)
