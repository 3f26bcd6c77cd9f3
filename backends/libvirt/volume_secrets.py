"""Keys and passwords of volumes as libvirt's secrets, one for each use in an attachment.

libvirt keeps them below its own directory, where only root reads: a machine must be able
to start again after a restart of libvirtd. A secret is named by what it is for, so that
it is found again without a book: its UUID is made of instance, attachment and use.
"""

import base64
from collections.abc import Collection, Iterator

import libvirt
from virtrpc.v1.spec_pb2 import VolumeConnection

from backends.libvirt.domains import Domains
from backends.libvirt.xml.element import to_text
from backends.libvirt.xml.secret import CEPH, ISCSI, LUKS, Secret, secret_uuid

_USAGE_TYPES = {
    libvirt.VIR_SECRET_USAGE_TYPE_VOLUME,
    libvirt.VIR_SECRET_USAGE_TYPE_ISCSI,
    libvirt.VIR_SECRET_USAGE_TYPE_CEPH,
}


class VolumeSecrets:
    """The secrets of all attachments."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def keep(self, instance_id: str, attachment_id: str, volume: VolumeConnection) -> None:
        """Hands the secrets of a volume to libvirt; nothing where it has none."""
        connection = self._domains.connection.handles.own
        try:
            for use, value in secrets_of(volume):
                usage = f"{_prefix(instance_id)}{attachment_id}/{use}"
                made = Secret(
                    ephemeral=False,
                    private=True,
                    uuid=secret_uuid(instance_id, attachment_id, use),
                    usage_type=use,
                    volume=usage if use == LUKS else None,
                    target=usage if use == ISCSI else None,
                    name=usage if use == CEPH else None,
                )
                connection.secretDefineXML(to_text(made.to_xml())).setValue(value)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error

    def are_kept(self, instance_id: str, attachment_id: str) -> bool:
        """Whether an attachment has any."""
        try:
            return any(self._of(f"{_prefix(instance_id)}{attachment_id}/"))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return False
            raise self._domains.failed(error) from error

    def forget(self, instance_id: str, attachment_id: str = "") -> None:
        """Removes those of an attachment, or all of an instance; nothing where there are none."""
        self._remove(_prefix(instance_id) + (f"{attachment_id}/" if attachment_id else ""))

    def forget_others(self, instance_id: str, attachment_ids: Collection[str]) -> None:
        """Removes those of an instance's attachments that are none of these."""
        self._remove(_prefix(instance_id), but=attachment_ids)

    def _remove(self, prefix: str, *, but: Collection[str] = ()) -> None:
        try:
            for secret in self._of(prefix):
                if secret.usageID().split("/")[2] not in but:
                    secret.undefine()
        except libvirt.libvirtError as error:
            # A driver without secrets has none of ours; of two who remove it one is late.
            if error.get_error_code() not in (
                libvirt.VIR_ERR_NO_SUPPORT,
                libvirt.VIR_ERR_NO_SECRET,
            ):
                raise self._domains.failed(error) from error

    def _of(self, prefix: str) -> Iterator[libvirt.virSecret]:
        for secret in self._domains.connection.handles.own.listAllSecrets():
            if secret.usageType() in _USAGE_TYPES and secret.usageID().startswith(prefix):
                yield secret


def secrets_of(volume: VolumeConnection) -> Iterator[tuple[str, bytes]]:
    """Uses and values of a volume's secrets."""
    if volume.encryption.passphrase:
        yield LUKS, volume.encryption.passphrase
    if volume.iscsi.chap_password:
        yield ISCSI, volume.iscsi.chap_password.encode()
    if volume.rbd.key:
        yield CEPH, _decoded(volume.rbd.key)


def _decoded(key: str) -> bytes:
    """libvirt gives a Ceph key to QEMU in base64 again."""
    return base64.b64decode(key)


def _prefix(instance_id: str) -> str:
    return f"virtrpc/{instance_id}/"
