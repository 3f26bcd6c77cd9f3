"""What the daemon does by itself, because it is time: verbs, as operations like any other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog
from google.protobuf.message import Message

from backends.errors import ContractError
from service.bindings import Bindings
from service.operations.runner import Operations
from service.verbs import Verb

_LOOK_S = 1.0
_TRY_AGAIN_S = 60.0
log = structlog.get_logger()


class Errand:
    """One verb that the daemon calls, under a name of its own."""

    def __init__(
        self, operations: Operations, bindings: Bindings, verb: Verb, *, caller: str
    ) -> None:
        self._operations = operations
        self._bindings = bindings
        self._verb = verb
        self._caller = caller

    @property
    def offered(self) -> bool:
        """The backend has the verb."""
        return self._bindings.backend(self._verb) is not None

    async def run(self, request: Message) -> bool:
        """Calls it, and waits for its end; False where it could not be done, as the log says."""
        method = self._bindings.backend(self._verb)
        if method is None:
            return False
        try:
            operation = await self._operations.start(
                self._verb, request, method, caller=self._caller
            )
            await self._operations.response(operation, self._verb.response_class)
        except ContractError as error:
            log.warning(
                "not done by itself",
                verb=self._verb.name,
                instance_id=getattr(request, "instance_id", ""),
                reason=str(error),
            )
            return False
        return True


async def keep_doing(
    due: Callable[[], Iterable[str]], do: Callable[[str], Awaitable[bool]]
) -> None:
    """Does what is due to instances, by id, until it is cancelled; what fails again in a minute."""
    tried: dict[str, float] = {}
    while True:
        now_s = time.monotonic()
        tried = {i: at_s for i, at_s in tried.items() if now_s - at_s < _TRY_AGAIN_S}
        for instance_id in due():
            if instance_id not in tried and not await do(instance_id):
                tried[instance_id] = now_s
        await asyncio.sleep(_LOOK_S)
