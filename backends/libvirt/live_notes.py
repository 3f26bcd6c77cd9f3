"""Notes in a running machine's metadata: its next start knows nothing of them, and a daemon
after one that was killed reads them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import libvirt
from lxml import etree

from backends.libvirt.xml.element import Node, to_text


@dataclass(frozen=True)
class LiveNote:
    """One kind of note, as an element of the service's own."""

    name: str

    @property
    def _namespace(self) -> str:
        return f"https://virtrpc.dev/xmlns/{self.name}/1"

    def find_in(self, running: Node) -> Node | None:
        """The note of a running <domain>; None: it has none."""
        return running.find(f"metadata/{{{self._namespace}}}{self.name}")

    def is_on(self, domain: libvirt.virDomain) -> bool:
        """Whether a running machine has it; raises libvirt.libvirtError."""
        try:
            domain.metadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                self._namespace,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return False
            raise
        return True

    def put(self, domain: libvirt.virDomain, attributes: Mapping[str, str]) -> None:
        """Notes it in a running machine; raises libvirt.libvirtError."""
        self._set(domain, to_text(etree.Element(self.name, dict(attributes))))

    def forget(self, domain: libvirt.virDomain) -> None:
        """Takes it away again; nothing where it is not there. Raises libvirt.libvirtError."""
        self._set(domain, None)

    def _set(self, domain: libvirt.virDomain, note: str | None) -> None:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            note,
            f"virtrpc{self.name}",
            self._namespace,
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
