"""An instance on which verbs are tried, one case after the other.

It is brought to where a case begins, and made anew under its id when it is no longer as it
was: so guests on real QEMU are few, and no case sees what another has left.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from virtrpc.v1 import host_pb2, image_pb2, image_pb2_grpc, instance_pb2
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import GuestAgent
from tests.crash.caller import TIMEOUT_S, VERBS, Caller
from tests.crash.cases import DESTROY, EMPTY, SOURCE, SPAWN, Case
from tests.daemon import Connection, DaemonProcess
from tests.instances import agent_answers, destroyed

_VOLATILE: Final = ("power_state_reason", "started_at", "created_at", "cpu_time_ns", "cpu_time_at")


class Stage:
    """The instance of a daemon; `with` makes it and takes it away."""

    def __init__(self, daemon: DaemonProcess, connection: Connection) -> None:
        self._daemon = daemon
        self._connection = connection
        self._shared = self._caller()
        self._as_spawned: Instance | None = None
        (daemon.sources / SOURCE).write_bytes(bytes(1 << 16))
        self._empty = daemon.image_dir / f"{EMPTY}.raw"
        request = host_pb2.GetCapabilitiesRequest()
        found = connection.hosts.GetCapabilities(request, timeout=TIMEOUT_S).capabilities
        self._supported = {capability.name for capability in found if capability.supported}

    def __enter__(self) -> "Stage":
        self._empty.write_bytes(bytes(1 << 20))
        self._shared.prepare(Case("", [SPAWN]))
        self._as_spawned = facts(self._shared)
        return self

    def __exit__(self, *_: object) -> None:
        destroyed(self._connection, self._shared.instance_id)
        self._empty.unlink()

    def can(self, case: Case) -> bool:
        """The backend does it here."""
        return VERBS[case.verb].capability in self._supported

    def nobody(self) -> Caller:
        """A caller whose instance does not exist."""
        return self._caller()

    @contextmanager
    def after(self, before: Sequence[Case], case: Case | None = None) -> Iterator[Caller]:
        """A caller whose instance is where these verbs lead; `case` is what follows."""
        whole = (*before, case) if case is not None else before
        if SPAWN in before[:1] and not any(step.verb == DESTROY.verb for step in whole):
            caller = self._shared
            caller.turn += 1
            if any(hasattr(GuestAgent, VERBS[step.verb].attribute) for step in whole):
                agent_answers(self._connection, caller.instance_id)
            caller.prepare(Case("", before[1:]))
        else:
            caller = self._caller()
            caller.prepare(Case("", before))
        try:
            yield caller
        finally:
            caller.prepare(Case("", case.after if case is not None else ()))
            self._clear(caller)

    def images(self, caller: Caller) -> list[str]:
        """The images that a caller has made."""
        reply = self._images.ListImages(image_pb2.ListImagesRequest(), timeout=TIMEOUT_S)
        return [i.image_id for i in reply.images if caller.instance_id in i.image_id]

    def _clear(self, caller: Caller) -> None:
        for image_id in self.images(caller):
            request = image_pb2.DeleteImageRequest(image_id=image_id)
            self._images.DeleteImage(request, timeout=TIMEOUT_S)
        if caller is not self._shared:
            destroyed(self._connection, caller.instance_id)
        elif facts(caller) != self._as_spawned:
            destroyed(self._connection, caller.instance_id)
            caller.prepare(Case("", [SPAWN]))
            assert facts(caller) == self._as_spawned

    def _caller(self) -> Caller:
        return Caller(
            self._connection,
            backend=self._daemon.backend,
            instance_id=str(uuid.uuid4()),
            sources=self._daemon.sources,
        )

    @property
    def _images(self) -> image_pb2_grpc.ImageServiceStub:
        return image_pb2_grpc.ImageServiceStub(self._connection.channel)


def facts(caller: Caller) -> Instance | None:
    """The caller's instance without what changes by itself; None where there is none."""
    if caller.instance() is None:
        return None
    request = instance_pb2.GetInstanceRequest(instance_id=caller.instance_id, fresh=True)
    reply = caller.connection.instances.GetInstance(request, timeout=TIMEOUT_S)
    for name in _VOLATILE:
        reply.instance.ClearField(name)
    for machine in (reply.instance, reply.instance.effective):
        machine.ClearField("memory_kib")
    return reply.instance
