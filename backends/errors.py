"""Errors of the contract: one tree, which service/errors.py maps to gRPC status codes.

Every error has a stable `reason` for programs, a sentence for people and facts
that go with it. Neither may hold a secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Violation:
    """Something that stands in the way, found before anything was changed.

    `field` is the path of the request field concerned, e.g. "spec.image.image_id",
    or empty where the host as a whole is.
    """

    reason: str
    message: str
    field: str = ""


class ContractError(Exception):
    """Base of the tree.

    `reason` is an UPPER_SNAKE_CASE word and `metadata` are facts, for programs;
    `field` is the path of the request field concerned, if any.
    """

    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.reason
        self.field = field
        self.metadata = dict(metadata or {})

    @property
    def violations(self) -> Sequence[Violation]:
        """What stood in the way: the error itself, or each of several."""
        return (Violation(reason=self.reason, message=str(self), field=self.field),)


class InvalidArgumentError(ContractError):
    """The request cannot be meant; `field` is the path of the field at fault."""

    reason = "INVALID_REQUEST"


class NotFoundError(ContractError):
    """Something that the request names does not exist; `field` says which, if any."""

    reason = "NOT_FOUND"


class InstanceNotFoundError(NotFoundError):
    """No such instance on this host."""

    reason = "INSTANCE_NOT_FOUND"

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"instance {instance_id} is not on this host", metadata={"instance_id": instance_id}
        )


class AlreadyExistsError(ContractError):
    """What the request would make is there already, and is not the same."""

    reason = "ALREADY_EXISTS"


class WrongStateError(ContractError):
    """Not possible in the present state of the instance or host."""

    reason = "WRONG_STATE"


class BlockedError(ContractError):
    """A check found several blockers: all of them are told, nothing was changed."""

    reason = "BLOCKED"

    def __init__(self, blockers: Sequence[ContractError]) -> None:
        super().__init__("; ".join(str(blocker) for blocker in blockers))
        self.blockers = tuple(blockers)

    @property
    def violations(self) -> Sequence[Violation]:
        """Every blocker found."""
        return tuple(violation for blocker in self.blockers for violation in blocker.violations)


class UnsupportedError(ContractError):
    """This backend on this host lacks a capability; nothing was changed."""

    reason = "CAPABILITY_MISSING"

    def __init__(self, capability: str, *, why: str, field: str = "") -> None:
        super().__init__(
            f"{capability} is not supported here: {why}",
            field=field,
            metadata={"capability": capability},
        )


class OutOfRangeError(ContractError):
    """Past the end of what there is."""

    reason = "OUT_OF_RANGE"


class PermissionRefusedError(ContractError):
    """Something beyond the service, as a file or a server, refuses us."""

    reason = "PERMISSION_REFUSED"


class DamagedError(ContractError):
    """What was kept cannot be read whole any more."""

    reason = "DAMAGED"


class NoRoomError(ContractError):
    """Memory, disk or another resource of the host does not suffice."""

    reason = "NO_ROOM"


class BusyError(ContractError):
    """Another mutation of the same thing is running."""

    reason = "INSTANCE_BUSY"


class UnreachableError(ContractError):
    """The hypervisor does not answer; the same call may succeed later."""

    reason = "HYPERVISOR_UNREACHABLE"


class TimedOutError(ContractError):
    """The guest or hypervisor was asked and did not answer in time."""

    reason = "TIMEOUT"


class CancelledError(ContractError):
    """The operation was cancelled on request."""

    reason = "CANCELLED"


class HypervisorError(ContractError):
    """The hypervisor failed in a way that has no better name."""

    reason = "HYPERVISOR_ERROR"


class PeerUnreachableError(UnreachableError):
    """The daemon of another host does not answer."""

    reason = "PEER_UNREACHABLE"


class PeerDistrustedError(PeerUnreachableError):
    """Certificates or roles keep the daemon of another host and this one apart.

    As with one that does not answer, nothing is known of what it has.
    """

    reason = "PEER_DISTRUSTED"


class PeerRefusedError(WrongStateError):
    """The daemon of another host refuses; `peer_reason` is the reason that it gives."""

    reason = "PEER_REFUSED"

    def __init__(self, message: str, *, peer_code: str = "", peer_reason: str = "") -> None:
        super().__init__(message, metadata={"peer_code": peer_code, "peer_reason": peer_reason})
        self.peer_reason = peer_reason


class PeerMismatchError(WrongStateError):
    """What answers at another host is no daemon of this contract, or lacks a capability."""

    reason = "PEER_MISMATCH"


class MigrationFailedError(ContractError):
    """A migration broke; the instance is where it was."""

    reason = "MIGRATION_FAILED"
