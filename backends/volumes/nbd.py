"""Asks an NBD server for an export: is it there, and how large. Nothing is read of it.

The negotiation of fixed newstyle, up to NBD_OPT_INFO. QEMU itself would hang on a server
that says nothing, and tells of a failure in words only.
Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import struct
from typing import NoReturn

from virtrpc.v1.spec_pb2 import NbdVolume

from backends.volumes import refusals
from backends.volumes.attached import NBD_PORT
from backends.volumes.peer import Peer

_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_REPLY = struct.Struct(">QIII")
_EXPORT = struct.Struct(">HQH")
_MAGIC, _HAVE_OPTIONS, _REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_ABORT, _OPT_INFO = 2, 6
_ACK, _INFO, _ERROR = 1, 3, 1 << 31
_UNSUPPORTED, _POLICY, _TLS_REQUIRED, _UNKNOWN = _ERROR + 1, _ERROR + 2, _ERROR + 5, _ERROR + 6
_MOST_BYTES = 1 << 16


def export_size(nbd: NbdVolume, *, field: str, timeout_s: float) -> int:
    """Size of an export in bytes; 0 where the server does not tell it without TLS or at all.

    `field` is the volume's path in the request. Raises STORAGE_UNREACHABLE, STORAGE_TIMEOUT,
    STORAGE_REFUSED or VOLUME_NOT_FOUND.
    """
    try:
        with Peer(timeout_s) as server:
            server.connect(nbd.socket_path or (nbd.host, nbd.port or NBD_PORT))
            return _negotiated(server, nbd, field)
    except TimeoutError as error:
        raise refusals.storage_timeout(timeout_s) from error
    except OSError as error:
        why = f"the NBD server cannot be reached: {error.strerror or error}"
        raise refusals.storage_unreachable(why) from error


def _negotiated(server: Peer, nbd: NbdVolume, field: str) -> int:
    magic, kind, flags = _GREETING.unpack(server.receive(_GREETING.size))
    if magic != _MAGIC or kind != _HAVE_OPTIONS or not flags & _FIXED_NEWSTYLE:
        raise refusals.storage_refused("what listens there is no NBD server of today")
    if nbd.tls:
        return 0
    name = nbd.export.encode()
    server.send(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
    asked = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    server.send(_OPTION.pack(_HAVE_OPTIONS, _OPT_INFO, len(asked)) + asked)
    size_bytes = _size_in_replies(server, nbd.export, field)
    server.send(_OPTION.pack(_HAVE_OPTIONS, _OPT_ABORT, 0))
    return size_bytes


def _size_in_replies(server: Peer, export: str, field: str) -> int:
    size_bytes = 0
    while True:
        magic, _option, kind, length = _REPLY.unpack(server.receive(_REPLY.size))
        if magic != _REPLY_MAGIC or length > _MOST_BYTES:
            raise refusals.storage_refused("the NBD server does not keep to its protocol")
        data = server.receive(length)
        if kind in (_ACK, _UNSUPPORTED):
            return size_bytes
        if kind & _ERROR:
            _raise_refusal(kind, export, field)
        if kind == _INFO and length == _EXPORT.size and not data[0] and not data[1]:
            _, size_bytes, _ = _EXPORT.unpack(data)


def _raise_refusal(kind: int, export: str, field: str) -> NoReturn:
    if kind == _UNKNOWN:
        raise refusals.volume_not_found(f"the NBD server has no export {export!r}", field)
    if kind == _TLS_REQUIRED:
        raise refusals.storage_refused("the NBD server wants TLS")
    why = "by its policy" if kind == _POLICY else f"with code {kind & ~_ERROR}"
    raise refusals.storage_refused(f"the NBD server refuses {why}")
