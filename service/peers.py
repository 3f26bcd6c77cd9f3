"""Daemons of other hosts, spoken to by the contract that this one serves.

By TLS each proves who it is, and must have the role migrator at the other. Without TLS only
where nobody can listen in: Unix sockets, loopback, and the networks that the configuration
names.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from virtrpc.address import Address
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1 import migration_pb2_grpc

from backends.contract import Peer
from backends.contract.migration import unhindered
from backends.errors import (
    BlockedError,
    InvalidArgumentError,
    PeerDistrustedError,
    PeerMismatchError,
    PeerRefusedError,
    PeerUnreachableError,
)
from service.peer_trust import require_migrator
from service.roles import RoleBindings
from service.settings.types import Network
from service.tls import Tls
from service.validation import check

_CHECK_S = 30.0
_CHANGE_S = 300.0
# The reasons of its identity and role stations.
_DENIED = ("UNAUTHENTICATED", "ROLE_MISSING")
_LOOK_S = 0.25
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# A peer that has gone without a word is noticed, not waited for.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
)
Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class GrpcPeers:
    """See backends.contract.Peers."""

    def __init__(
        self, networks: Sequence[Network], *, tls: Tls | None = None, roles: RoleBindings
    ) -> None:
        """`networks`: of those that are spoken to without TLS. `roles`: who peers may be."""
        self._networks = tuple(networks)
        self._tls = tls
        self._roles = roles

    @contextmanager
    def at(self, uri: str) -> Iterator[Peer]:
        """See Peers; a channel for as long as the block lasts."""
        address = Address.parse(uri)
        if address.secure:
            with self._by_tls(address) as peer:
                yield peer
            return
        target = f"unix:{address.socket_path}" if address.socket_path else self._target(address)
        with grpc.insecure_channel(target, options=_OPTIONS) as channel:
            yield GrpcPeer(uri, channel)

    @contextmanager
    def _by_tls(self, address: Address) -> Iterator[Peer]:
        tls = self._tls
        if tls is None:
            raise PeerRefusedError(
                "this daemon has no certificates to speak TLS with", peer_reason="TLS_UNAVAILABLE"
            )
        trusted = partial(require_migrator, address, tls=tls, roles=self._roles)
        with grpc.secure_channel(
            address.target, tls.channel_credentials(), options=_OPTIONS
        ) as channel:
            yield GrpcPeer(str(address), channel, before=trusted)

    def _target(self, address: Address) -> str:
        """The very address that was looked at: a name could resolve to another later."""
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PeerUnreachableError(f"{address} is not known: {error.strerror}") from error
        for *_, place in found:
            ip = ipaddress.ip_address(place[0])
            if ip.is_loopback or any(ip in network for network in self._networks):
                host = f"[{ip}]" if ip.version == 6 else str(ip)
                return f"ipv{ip.version}:{host}:{address.port}"
        raise PeerRefusedError(
            f"{address} may not be spoken to without TLS: --peer-network allows it",
            peer_reason="INSECURE_PEER",
        )


class GrpcPeer:
    """See backends.contract.Peer."""

    def __init__(
        self, uri: str, channel: grpc.Channel, *, before: Callable[[], None] = lambda: None
    ) -> None:
        """`before`: what is looked at before each call."""
        self._uri = uri
        self._before = before
        self._stub = migration_pb2_grpc.MigrationServiceStub(channel)

    def check_destination(
        self, request: pb.CheckDestinationRequest, checkpoint: Callable[[], None] = unhindered
    ) -> pb.CheckDestinationResponse:
        """See Peer."""
        stub = self._stub.CheckDestination
        return self._checked(self._call(stub, request, _CHECK_S, checkpoint))

    def prepare_destination(
        self, request: pb.PrepareDestinationRequest, checkpoint: Callable[[], None] = unhindered
    ) -> pb.PrepareDestinationResponse:
        """See Peer."""
        stub = self._stub.PrepareDestination
        return self._checked(self._call(stub, request, _CHANGE_S, checkpoint))

    def rollback_destination(
        self, request: pb.RollbackDestinationRequest, *, within_s: float = _CHECK_S
    ) -> pb.RollbackDestinationResponse:
        """See Peer."""
        return self._call(self._stub.RollbackDestination, request, within_s)

    def complete_destination(
        self, request: pb.CompleteDestinationRequest
    ) -> pb.CompleteDestinationResponse:
        """See Peer."""
        return self._call(self._stub.CompleteDestination, request, _CHECK_S)

    def cleanup_destination_check(
        self, request: pb.CleanupDestinationCheckRequest
    ) -> pb.CleanupDestinationCheckResponse:
        """See Peer."""
        return self._call(self._stub.CleanupDestinationCheck, request, _CHECK_S)

    def receive_disk(
        self, requests: Iterator[pb.ReceiveDiskRequest], checkpoint: Callable[[], None]
    ) -> pb.ReceiveDiskResponse:
        """See Peer. gRPC asks for the next message when the last one is on its way."""
        self._before()
        reply: pb.ReceiveDiskResponse
        reply = self._answer(self._stub.ReceiveDisk.future(requests), checkpoint)
        return reply

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Reply]",
        request: Request,
        timeout_s: float,
        checkpoint: Callable[[], None] = unhindered,
    ) -> Reply:
        self._before()
        reply: Reply = self._answer(method.future(request, timeout=timeout_s), checkpoint)
        return reply

    def _answer(self, call: Any, checkpoint: Callable[[], None]) -> Any:
        """What a call comes to; one that is no longer wanted is ended."""
        try:
            while True:
                try:
                    return call.result(timeout=_LOOK_S)
                except grpc.FutureTimeoutError:
                    checkpoint()
        except grpc.RpcError as error:
            raise _told(self._uri, error) from error
        finally:
            call.cancel()

    def _checked(self, reply: Reply) -> Reply:
        """An answer that is acted upon, held against the rules that requests are held against.

        A destination says where its hypervisor is, and an address may be a command.
        """
        try:
            check(reply)
        except (InvalidArgumentError, BlockedError) as error:
            raise PeerMismatchError(
                f"{self._uri} answers what the contract does not allow: {error}",
                metadata={"peer_reason": "INVALID_ANSWER"},
            ) from error
        return reply


def _told(uri: str, error: Any) -> Exception:
    """What a failed call says of the peer."""
    code, reason = error.code(), _reason(error)
    if code in _SILENT:
        return PeerUnreachableError(f"{uri} does not answer", metadata={"peer_reason": reason})
    if reason in _DENIED:
        return PeerDistrustedError(
            f"{uri} does not let this host in: {error.details()}", metadata={"peer_reason": reason}
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return PeerMismatchError(
            f"{uri} cannot take part in a migration: {error.details()}",
            metadata={"peer_reason": reason},
        )
    return PeerRefusedError(
        f"{uri} refuses: {error.details()}", peer_code=code.name, peer_reason=reason
    )


def _reason(error: grpc.RpcError) -> str:
    """The reason in a status of this contract; empty where it is another's."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""
