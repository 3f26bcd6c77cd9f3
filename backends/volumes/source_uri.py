"""Volumes read back from where an instance says that their bytes are.

The other way round than backends.volumes.attached.source_of.
"""

from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from virtrpc.v1.spec_pb2 import DiskFormat, VolumeConnection

from backends.volumes.attached import ISCSI_PORT, NBD_PORT


def connection_of(
    source: str, *, volume_id: str, file_format: "DiskFormat.ValueType" = DiskFormat.DISK_FORMAT_RAW
) -> VolumeConnection | None:
    """The volume at a source, without its secrets; None where the source does not say enough.

    That is so of RBD, whose monitors are not in it.
    """
    volume = VolumeConnection(volume_id=volume_id)
    uri = urlsplit(source)
    if source.startswith("/dev/"):
        volume.local_block.path = source
    elif source.startswith("/"):
        volume.local_file.path, volume.local_file.format = source, file_format
    elif uri.scheme == "nbd+unix":
        volume.nbd.export = unquote(uri.path.removeprefix("/"))
        volume.nbd.socket_path = parse_qs(uri.query).get("socket", [""])[0]
    elif uri.scheme == "nbd" and _is_at_a_server(uri):
        volume.nbd.host, volume.nbd.port = uri.hostname or "", uri.port or NBD_PORT
        volume.nbd.export = unquote(uri.path.removeprefix("/"))
    elif uri.scheme == "iscsi" and _is_at_a_server(uri):
        volume.iscsi.host, volume.iscsi.port = uri.hostname or "", uri.port or ISCSI_PORT
        iqn, _, lun = uri.path.removeprefix("/").rpartition("/")
        if not lun.isdigit():
            return None
        volume.iscsi.target_iqn, volume.iscsi.lun = iqn, int(lun)
    else:
        return None
    return volume


def _is_at_a_server(uri: SplitResult) -> bool:
    try:
        return bool(uri.hostname) and (uri.port is None or uri.port > 0)
    except ValueError:
        return False
