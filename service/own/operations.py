"""OperationService: looking at operations, waiting for them, stopping them."""

import asyncio
from collections.abc import AsyncIterator
from itertools import dropwhile, islice

from virtrpc.v1 import operation_pb2 as pb

from backends.errors import WrongStateError
from service.dispatcher import Call
from service.errors import ShuttingDownError
from service.operations.runner import Operations
from service.own.paging import last_id, page_size, page_token

_DEFAULT_WAIT_S = 60.0
_MARGIN_S = 0.2  # before the caller's deadline, so that the reply still reaches it


class OperationVerbs:
    """Verbs on operations, served from the book."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def get_operation(self, request: pb.GetOperationRequest, _call: Call) -> pb.Operation:
        """See OperationService.GetOperation."""
        return self._operations.book.get(request.operation_id)

    async def list_operations(
        self, request: pb.ListOperationsRequest, _call: Call
    ) -> pb.ListOperationsResponse:
        """See OperationService.ListOperations."""
        size = page_size(request.page)
        operations = self._operations.book.newest_first()
        last = last_id(request, request.page)
        if last:
            operations = islice(
                dropwhile(lambda operation: operation.operation_id != last, operations), 1, None
            )
        page = list(islice((o for o in operations if _matches(request, o)), size + 1))
        response = pb.ListOperationsResponse(operations=map(_summary, page[:size]))
        if len(page) > size:
            response.next_page_token = page_token(request, page[size - 1].operation_id)
        return response

    async def wait_operation(self, request: pb.WaitOperationRequest, call: Call) -> pb.Operation:
        """See OperationService.WaitOperation."""
        timeout_s = _DEFAULT_WAIT_S
        if request.HasField("timeout"):
            timeout_s = request.timeout.ToNanoseconds() / 1e9
        if call.remaining_s is not None:
            timeout_s = min(timeout_s, max(call.remaining_s - _MARGIN_S, 0))
        operation = self._operations.book.get(request.operation_id)
        try:
            async with asyncio.timeout(timeout_s):
                async for _ in self._operations.book.watch(request.operation_id):
                    self._refuse_when_closing(operation)
        except TimeoutError:
            pass
        return operation

    async def watch_operation(
        self, request: pb.WatchOperationRequest, _call: Call
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """See OperationService.WatchOperation."""
        async for operation in self._operations.book.watch(request.operation_id):
            self._refuse_when_closing(operation)
            yield pb.WatchOperationResponse(operation=operation)

    async def cancel_operation(
        self, request: pb.CancelOperationRequest, _call: Call
    ) -> pb.Operation:
        """See OperationService.CancelOperation."""
        if not self._operations.cancellable(request.operation_id):
            raise WrongStateError(
                "this operation pre-empts others and cannot be stopped itself",
                reason="NOT_CANCELLABLE",
            )
        return self._operations.cancel(request.operation_id)

    def _refuse_when_closing(self, operation: pb.Operation) -> None:
        if self._operations.closing and not operation.done:
            raise ShuttingDownError(
                "the daemon stops; the operation goes on at its next start",
                metadata={"operation_id": operation.operation_id},
            )


def _matches(request: pb.ListOperationsRequest, operation: pb.Operation) -> bool:
    if request.instance_id and operation.instance_id != request.instance_id:
        return False
    if request.verb and operation.verb != request.verb:
        return False
    return not request.states or operation.state in request.states


def _summary(operation: pb.Operation) -> pb.Operation:
    """The operation as listings show it."""
    shown = pb.Operation()
    shown.CopyFrom(operation)
    shown.ClearField("steps")
    shown.ClearField("result")
    return shown
