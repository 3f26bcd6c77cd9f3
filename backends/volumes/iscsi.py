"""Asks an iSCSI target for a LUN: does it let us in, is it there, how large. Nothing is written.

QEMU would ask with all its guest standing still, for as long as a server that says nothing
likes; and tells of a failure in words only. A login, READ CAPACITY and no more.
Source: RFC 7143 (chapters 6, 11, 12 and 13), RFC 1994 (CHAP), SBC-3 and SPC-4 of T10.
"""

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from virtrpc.v1.spec_pb2 import IscsiVolume

from backends.errors import ContractError
from backends.volumes import refusals
from backends.volumes.attached import ISCSI_PORT
from backends.volumes.peer import Peer

_HEADER_BYTES, _MOST_BYTES, _MOST_MESSAGES, _MOST_PORTALS = 48, 1 << 16, 64, 4
_LOGIN, _COMMAND, _LOGOUT = 0x43, 0x01, 0x46
_LOGGED_IN, _DATA, _RESPONSE, _NOTHING = 0x23, 0x25, 0x21, 0x20
_SECURITY, _OPERATIONAL, _FULL_FEATURE = 0, 1, 3
_TRANSIT, _FINAL, _READ, _SIMPLE, _STATUS_HERE = 0x80, 0x80, 0x40, 0x01, 0x01
_MOVED, _INITIATOR_ERROR, _NOT_FOUND = 1, 2, 3
_CHECK_CONDITION, _UNIT_ATTENTION, _NO_SUCH_LUN = 0x02, 0x06, 0x25
_READ_CAPACITY = struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0)
_PARAMETERS = {
    "HeaderDigest": "None", "DataDigest": "None", "MaxConnections": "1", "InitialR2T": "Yes",
    "ImmediateData": "No", "MaxRecvDataSegmentLength": "8192", "MaxBurstLength": "262144",
    "FirstBurstLength": "65536", "DefaultTime2Wait": "2", "DefaultTime2Retain": "0",
    "MaxOutstandingR2T": "1", "ErrorRecoveryLevel": "0", "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
}  # fmt: skip


def lun_size(iscsi: IscsiVolume, *, initiator: str, field: str, timeout_s: float) -> int:
    """Size of a LUN in bytes; 0 where the target does not tell it.

    `field` is the volume's path in the request. Raises STORAGE_UNREACHABLE, STORAGE_TIMEOUT,
    STORAGE_REFUSED or VOLUME_NOT_FOUND.
    """
    try:
        with Peer(timeout_s) as peer:
            session = _Session(peer, field)
            session.log_in(iscsi, initiator)
            return session.capacity(iscsi.lun)
    except TimeoutError as error:
        raise refusals.storage_timeout(timeout_s) from error
    except OSError as error:
        why = f"the iSCSI target cannot be reached: {error.strerror or error}"
        raise refusals.storage_unreachable(why) from error


@dataclass(frozen=True)
class _Message:
    """A protocol data unit."""

    header: bytes
    data: bytes

    @property
    def kind(self) -> int:
        return self.header[0] & 0x3F

    @property
    def texts(self) -> Mapping[str, str]:
        pairs = (text.partition("=") for text in self.data.decode("utf-8", "replace").split("\0"))
        return {name: value for name, _, value in pairs}


class _Session:
    """A login to a target, and its commands."""

    def __init__(self, peer: Peer, field: str) -> None:
        self._peer = peer
        self._field = field
        self._isid = b"\x80" + os.urandom(5)  # a random one
        self._next_status, self._commands = 0, 0

    def log_in(self, iscsi: IscsiVolume, initiator: str) -> None:
        """Opens a session, at another portal where the target has moved."""
        portal = (iscsi.host, iscsi.port or ISCSI_PORT)
        names = {"InitiatorName": initiator, "SessionType": "Normal"}
        names |= {"TargetName": iscsi.target_iqn}
        names |= {"AuthMethod": "CHAP,None" if iscsi.chap_username else "None"}
        for _ in range(_MOST_PORTALS):
            self._peer.connect(portal)
            reply = self._login(names, _SECURITY, _OPERATIONAL)
            if reply.header[36] != _MOVED:
                break
            portal = _portal(reply.texts.get("TargetAddress", ""))
        else:
            raise refusals.storage_refused("the iSCSI target sends from portal to portal")
        if reply.texts.get("AuthMethod") == "CHAP":
            self._authenticate(iscsi)
        self._login(_PARAMETERS, _OPERATIONAL, _FULL_FEATURE)

    def capacity(self, lun: int) -> int:
        """Bytes of a LUN."""
        for _ in range(_MOST_PORTALS):
            status, data = self._command(lun, _READ_CAPACITY)
            if not status and len(data) >= 12:
                last, block_bytes = struct.unpack_from(">QI", data)
                self._send(_LOGOUT, _FINAL, b"")
                return int((last + 1) * block_bytes)
            key, code = _sense(data)
            if status == _CHECK_CONDITION and code == _NO_SUCH_LUN:
                raise refusals.volume_not_found(f"the iSCSI target has no LUN {lun}", self._field)
            if status != _CHECK_CONDITION or key != _UNIT_ATTENTION:
                return 0
        return 0

    def _authenticate(self, iscsi: IscsiVolume) -> None:
        asked = self._login({"CHAP_A": "5"}, _SECURITY, _SECURITY).texts
        try:
            number, challenge = int(asked["CHAP_I"]), bytes.fromhex(asked["CHAP_C"][2:])
        except (KeyError, ValueError) as error:
            raise _not_kept() from error
        said = bytes([number & 0xFF]) + iscsi.chap_password.encode() + challenge
        answer = hashlib.md5(said, usedforsecurity=False).hexdigest()
        names = {"CHAP_N": iscsi.chap_username, "CHAP_R": f"0x{answer}"}
        self._login(names, _SECURITY, _OPERATIONAL)

    def _login(self, texts: Mapping[str, str], stage: int, next_stage: int) -> _Message:
        data = b"".join(f"{name}={value}\0".encode() for name, value in texts.items())
        transit = _TRANSIT if next_stage != stage else 0
        self._send(_LOGIN, transit | stage << 2 | next_stage, data, self._isid + bytes(2))
        reply = self._receive(_LOGGED_IN)
        outcome, detail = reply.header[36:38]
        if outcome == _INITIATOR_ERROR and detail == _NOT_FOUND:
            raise refusals.volume_not_found("the iSCSI server has no such target", self._field)
        if outcome == _INITIATOR_ERROR:
            why = f"the iSCSI target refuses the initiator or its password (code {detail})"
            raise refusals.storage_refused(why)
        if outcome not in (0, _MOVED):
            raise refusals.storage_unreachable(f"the iSCSI target is not ready (code {detail})")
        return reply

    def _command(self, lun: int, command: bytes) -> tuple[int, bytes]:
        """Status, and the data or else the sense data."""
        where = struct.pack(">H6x", lun if lun < 256 else 0x4000 | lun)
        self._send(_COMMAND, _FINAL | _READ | _SIMPLE, b"", where, expected=32, command=command)
        self._commands += 1
        data = b""
        while True:
            reply = self._receive(_DATA, _RESPONSE)
            if reply.kind == _RESPONSE:
                status = reply.header[3]
                return status, reply.data[2:] if status else data
            data += reply.data
            if reply.header[1] & _STATUS_HERE:
                return reply.header[3], data

    def _send(
        self, kind: int, flags: int, data: bytes, place: bytes = bytes(8),
        *, expected: int = 0, command: bytes = b"",
    ) -> None:  # fmt: skip
        header = struct.pack(">BBxxI", kind, flags, len(data)) + place
        tag, counted = self._commands + 1, (self._commands, self._next_status)
        header += struct.pack(">IIII", tag, expected, *counted)
        self._peer.send(header + command.ljust(16, b"\0") + data + bytes(-len(data) % 4))

    def _receive(self, *kinds: int) -> _Message:
        for _ in range(_MOST_MESSAGES):
            header = self._peer.receive(_HEADER_BYTES)
            length = int.from_bytes(header[5:8], "big")
            if length > _MOST_BYTES:
                raise _not_kept()
            self._peer.receive(header[4] * 4)
            data = self._peer.receive(length + -length % 4)[:length]
            message = _Message(header, data)
            if message.kind in kinds:
                self._next_status = int.from_bytes(header[24:28], "big") + 1 & 0xFFFFFFFF
                return message
            if message.kind != _NOTHING:
                break
        raise _not_kept()


def _sense(data: bytes) -> tuple[int, int]:
    """Key and additional code of sense data, of fixed format or of descriptors."""
    if len(data) < 14:
        return 0, 0
    if data[0] & 0x7F < 0x72:
        return data[2] & 0xF, data[12]
    return data[1] & 0xF, data[2]


def _portal(text: str) -> tuple[str, int]:
    """Of "host:port,group"."""
    host, _, port = text.partition(",")[0].rpartition(":")
    if not host or not port.isdigit():
        raise _not_kept()
    return host.strip("[]"), int(port)


def _not_kept() -> ContractError:
    return refusals.storage_refused("the iSCSI target does not keep to its protocol")
