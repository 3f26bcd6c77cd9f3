"""Who has which port, MAC address and host device, on the whole host.

    PrepareNetworks ─▶ reserved (a file) ─▶ SpawnInstance, AttachInterface: claimed ─▶ attached

What is attached the backend knows. A claim lasts as long as the call that makes
something of it: two calls for the same address cannot both find it free.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from google.protobuf import json_format
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.interface_pb2 import PrepareNetworksRequest
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.durable_files import write_durably
from backends.errors import AlreadyExistsError, ContractError, WrongStateError
from backends.plan.interfaces import host_device, mac_address

log = structlog.get_logger()


@dataclass(frozen=True)
class Holding:
    """What one interface has to itself."""

    instance_id: str
    port_id: str
    mac_address: str
    host_device: str


class InterfaceBook:
    """All interfaces of the host. Callable from any thread."""

    def __init__(self, folder: Path, attached: Callable[[], Iterable[Instance]]) -> None:
        """`folder` keeps what is reserved; `attached` gives all instances with their machines."""
        self._folder = folder
        self._attached = attached
        self._claims: list[tuple[object, Holding]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Makes the folder; call before anything else."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def claimed(
        self, instance_id: str, wanted: Sequence[tuple[str, InterfaceSpec]]
    ) -> Iterator[list[ContractError]]:
        """Claims interfaces, each with its path in the request, until the block is left.

        Gives what others have of them already.
        """
        me = object()
        holdings = [(field, spec, holding_of(instance_id, spec)) for field, spec in wanted]
        with self._lock:
            errors = [
                error
                for field, spec, holding in holdings
                for error in self._taken(holding, field, spec)
            ]
            self._claims += [(me, holding) for _, _, holding in holdings]
        try:
            yield errors
        finally:
            with self._lock:
                self._claims = [claim for claim in self._claims if claim[0] is not me]

    def prepared(self, instance_id: str) -> list[InterfaceSpec] | None:
        """The interfaces that are reserved for an instance to come; None: nothing is."""
        return next((found for owner, found in self._reserved() if owner == instance_id), None)

    def reserve(self, instance_id: str, interfaces: Sequence[InterfaceSpec]) -> None:
        """Keeps interfaces for an instance to come; raises OSError."""
        kept = PrepareNetworksRequest(instance_id=instance_id, interfaces=interfaces)
        write_durably(self._path(instance_id), json_format.MessageToJson(kept))

    def give_up(self, instance_id: str) -> bool:
        """Reserves nothing for an instance any more; False where nothing was."""
        there = self._path(instance_id).exists()
        self._path(instance_id).unlink(missing_ok=True)
        return there

    def _path(self, instance_id: str) -> Path:
        return self._folder / f"{instance_id}.json"

    def _reserved(self) -> Iterator[tuple[str, list[InterfaceSpec]]]:
        for path in self._folder.glob("*.json"):
            kept = PrepareNetworksRequest()
            try:
                json_format.Parse(path.read_text("utf-8"), kept, ignore_unknown_fields=True)
            except FileNotFoundError:
                continue
            except (OSError, json_format.ParseError, UnicodeDecodeError) as error:
                log.error("reservation cannot be read", path=str(path), error=str(error))
                continue
            yield kept.instance_id, list(kept.interfaces)

    def _taken(self, wanted: Holding, field: str, spec: InterfaceSpec) -> Iterator[ContractError]:
        """What another interface has of what one wants: each of the three once."""
        others = [holding for holding in self._holdings() if not _is_same(holding, wanted)]
        for holding in others:
            if holding.port_id == wanted.port_id:
                yield WrongStateError(
                    f"port {holding.port_id} is in use by instance {holding.instance_id}",
                    reason="PORT_IN_USE",
                    field=f"{field}.port_id",
                    metadata={"instance_id": holding.instance_id},
                )
                return
        for holding in others:
            if holding.mac_address == wanted.mac_address:
                yield _taken(holding, f"{field}.mac_address", "MAC_TAKEN", wanted.mac_address)
                break
        for holding in others:
            if wanted.host_device and holding.host_device == wanted.host_device:
                at = f"{field}.{spec.WhichOneof('network')}"
                yield _taken(holding, at, "HOST_DEVICE_TAKEN", wanted.host_device)
                break

    def _holdings(self) -> Iterator[Holding]:
        yield from (holding for _, holding in self._claims)
        for instance_id, interfaces in self._reserved():
            yield from (holding_of(instance_id, spec) for spec in interfaces)
        for instance in self._attached():
            for machine in (instance.persistent, instance.effective):
                for interface in machine.interfaces:
                    yield Holding(
                        instance.instance_id,
                        interface.port_id,
                        interface.mac_address,
                        interface.host_device,
                    )


def holding_of(instance_id: str, spec: InterfaceSpec) -> Holding:
    """What an interface of a specification would have."""
    mac = mac_address(instance_id, spec)
    return Holding(instance_id, spec.port_id, mac, host_device(spec))


def _is_same(one: Holding, other: Holding) -> bool:
    return (one.instance_id, one.port_id) == (other.instance_id, other.port_id)


def _taken(holding: Holding, field: str, reason: str, what: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"an interface of instance {holding.instance_id} has {what}",
        reason=reason,
        field=field,
        metadata={"instance_id": holding.instance_id},
    )
