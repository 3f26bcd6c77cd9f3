"""What the verbs of interfaces ask of a backend."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from virtrpc.v1.instance_pb2 import AttachedInterface, Instance
from virtrpc.v1.spec_pb2 import InstanceSpec, InterfaceSpec

from backends.errors import ContractError
from backends.work import Work


class InterfaceHost(Protocol):
    """The machines of a backend, as far as their interfaces go."""

    @property
    def features(self) -> Mapping[str, str]:
        """Features of the host → why they are missing; "": they are there."""

    def find(self, instance_id: str) -> Instance | None:
        """The facts of an instance, as they are now."""

    def managed(self, instance_id: str) -> Instance:
        """As `find`; raises InstanceNotFoundError, or WrongStateError for a foreign one."""

    def tell(self, instance_id: str) -> Instance:
        """As `managed`, and the daemon is told."""

    def observed(self, work: Work, verb: str, instance: Instance | None) -> Work:
        """The Work of a verb as this backend wants it reported."""

    def network_errors(self, interface: InterfaceSpec, field: str) -> Iterable[ContractError]:
        """What keeps an interface from networks that the hypervisor or a switch has."""

    def hot_plug_errors(self, instance: Instance, interface: InterfaceSpec) -> list[ContractError]:
        """What keeps a running machine from another device of this kind."""

    def plug_in(self, instance_id: str, interface: InterfaceSpec) -> None:
        """Puts a device into the configuration and the running machine, where it is not."""

    def release(
        self,
        instance_id: str,
        attached: AttachedInterface,
        work: Work | None,
        *,
        timeout_s: float,
        retry_s: float,
    ) -> bool:
        """Has the guest let go of a device; True when it has gone from the machine.

        Without time the guest is only asked. Raises DEVICE_NOT_RELEASED or
        DEVICE_RELEASE_REFUSED.
        """

    def forget(self, instance_id: str, attached: AttachedInterface) -> None:
        """Takes a device out of the configuration; nothing where it is not in it."""

    def change_spec(self, instance_id: str, change: Callable[[InstanceSpec], None]) -> None:
        """Changes the specification that is kept with an instance."""
