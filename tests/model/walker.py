"""An instance on a daemon, and what the model makes of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import grpc
from virtrpc.v1 import console_pb2, instance_pb2
from virtrpc.v1.operation_pb2 import Operation

from tests.attached import Tunnelled
from tests.crash.caller import Caller
from tests.crash.cases import CASES, EMPTY, Case
from tests.daemon import Connection, DaemonProcess
from tests.images import guest_cmdline
from tests.instances import TIMEOUT_S
from tests.model.life import Life, RefusedError
from tests.model.observed import is_whole, life_of, observable
from tests.model.verbs import after, ends_boot, outcome
from tests.refusals import refusal_of, refused

SMALL, LARGE = 1 << 20, 4 << 20
"""Bytes of the old volume, and of the new one, to which the old one is extended."""
_SCREEN = "GRAPHICS_TYPE_VNC"
_VNC = console_pb2.CONSOLE_TYPE_VNC
_CASES = {case.verb: case for case in reversed(CASES)}
_RELEASE = {"timeout": {"seconds": 60}, "retry_interval": {"seconds": 1}}


def place_files(daemon: DaemonProcess, instance_id: str) -> None:
    """The disk image, and the volumes, as the table of verbs names them."""
    (daemon.image_dir / f"{EMPTY}.raw").write_bytes(bytes(SMALL))
    (daemon.sources / instance_id).write_bytes(bytes(SMALL))
    (daemon.sources / f"{instance_id}.new").write_bytes(bytes(LARGE))


def image(backend: str) -> Mapping[str, str]:
    """A kernel, and a root disk that can be copied and made anew."""
    arguments = guest_cmdline() if backend == "libvirt" else ""
    return {"image_id": EMPTY, "kernel_image_id": "kernel", "ramdisk_image_id": "ramdisk",
            "kernel_args": arguments}  # fmt: skip


class Walker:
    """Goes one verb after the other, and holds each answer and its effect against the model."""

    def __init__(self, daemon: DaemonProcess, connection: Connection, instance_id: str) -> None:
        place_files(daemon, instance_id)
        self.life: Life | None = None
        self._instance_id = instance_id
        self._connection = connection
        self._sources = daemon.sources
        self._caller = Caller(connection, backend=daemon.backend, instance_id=instance_id,
                              sources=daemon.sources)  # fmt: skip
        self._tokens: list[tuple[str, bool]] = []

    def only_ask(self, verb: str) -> None:
        """Asks whether a verb could be; the answer is that of the model, and nothing changes."""
        self._begin(verb)
        self._judge(verb, self._answer(verb, validate_only=True))

    def go(self, verb: str) -> None:
        """Calls a verb; answer and effect are those of the model."""
        self._begin(verb)
        before = self.life
        answer = self._answer(verb)
        self._judge(verb, answer)
        self.life = outcome(self.life, verb)
        assert (seen := self.seen()) == observable(self.life), (verb, before, seen)
        if self.life is None:
            self._caller.turn += 1  # what is remembered is of another instance of that id
        if not answer and ends_boot(before, verb, self.life):
            self._tokens = [(token, False) for token, _ in self._tokens]

    def spend(self) -> None:
        """Opens a console with the newest token, where there is one: once, if it is good."""
        if not self._tokens:
            return
        token, good = self._tokens.pop()
        if good:
            with self._console(token) as tunnel:
                tunnel.opened()
        with (
            self._console(token) as tunnel,
            refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED"),
        ):
            tunnel.opened()

    def seen(self) -> Life | None:
        """The instance as the daemon lists it."""
        request = instance_pb2.ListInstancesRequest(
            include_soft_deleted=True, view=instance_pb2.INSTANCE_VIEW_FULL
        )
        listed = self._connection.instances.ListInstances(request, timeout=TIMEOUT_S).instances
        found = next((i for i in listed if i.instance_id == self._instance_id), None)
        assert found is None or is_whole(found), found
        return None if found is None else life_of(found)

    def _begin(self, verb: str) -> None:
        """Another resize has another number; an overlay outlives its attachment."""
        life, begins = self.life, verb == "MigrateDiskAndPowerOff"
        if begins and life is not None and life.resize in ("confirmed", "reverted"):
            self._caller.turn += 1
            self.life = replace(life, resize="")
        if verb == "CreateVolumeSnapshot" and not (life and life.cut):
            for overlay in self._sources.glob(f"{self._instance_id}*.{self._instance_id}"):
                overlay.unlink()

    def _judge(self, verb: str, answer: str) -> None:
        try:
            after(self.life, verb)
        except RefusedError as because:
            assert answer in because.args, (verb, answer, self.life)
        else:
            assert answer == "", (verb, answer, self.life)

    def _answer(self, verb: str, **more: Any) -> str:
        """The reason for which a verb is refused; empty: it succeeds."""
        case = self._case(verb)
        try:
            answer = self._caller.answer(case, **more)
        except grpc.RpcError as error:
            return refusal_of(error).reason
        if isinstance(answer, Operation) and answer.operation_id:
            ended = self._caller.ended(answer.operation_id)
            if verb == "SnapshotInstance" and not ended.HasField("error"):
                self._delete_image()
            return ended.error.reason
        if isinstance(answer, console_pb2.GetConsoleResponse) and answer.token:
            self._tokens.append((answer.token, True))
        return ""

    def _case(self, verb: str) -> Case:
        case, fields = _CASES[verb], dict(_CASES[verb].fields)
        spec: dict[str, Any] = {}
        if verb == "SpawnInstance":
            spec = {
                "image": image(self._caller.backend),
                "machine": {"graphics": _SCREEN},
            }
        elif verb == "RebuildInstance":
            fields["image"] = image(self._caller.backend)
        elif verb == "RescueInstance":
            fields["rescue_image_id"] = "guest"  # which boots, and lets go of devices
        elif verb == "SetInstanceBootable":
            fields["bootable"] = not (self.life and self.life.bootable)
        elif verb == "GetConsole":
            fields["type"] = _VNC
        elif verb.startswith("Detach"):
            fields.update(_RELEASE)
        return replace(case, fields=fields, spec=spec)

    def _delete_image(self) -> None:
        self._caller.call("DeleteImage", image_id=f"image-{self._instance_id}")

    def _console(self, token: str) -> Tunnelled:
        return Tunnelled(self._connection, self._instance_id, type=_VNC, token=token)
