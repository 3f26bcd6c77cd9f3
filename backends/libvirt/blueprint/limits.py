"""What a domain cannot hold, on any host."""

from collections.abc import Iterator, Mapping, Sequence

from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import ContractError, InvalidArgumentError, UnsupportedError
from backends.libvirt.xml.element import is_writable


def unsupported(spec: InstanceSpec) -> Sequence[ContractError]:
    """Parts of a specification that no domain of this backend can have: all of them."""
    return [
        *_unsupported_on_user_network(spec),
        *unwritable({"spec.image.kernel_args": spec.image.kernel_args}),
        *unwritable({f'spec.metadata["{k}"]': k + v for k, v in spec.metadata.items()}),
    ]


def unwritable(texts: Mapping[str, str]) -> list[ContractError]:
    """Texts, by the paths of their fields, that a domain cannot hold."""
    return [
        InvalidArgumentError("U+FFFE and U+FFFF are not characters", field=field)
        for field, text in texts.items()
        if not is_writable(text)
    ]


def _unsupported_on_user_network(spec: InstanceSpec) -> Iterator[ContractError]:
    for index, interface in enumerate(spec.interfaces):
        asked = {
            "mtu": ("interface_mtu", interface.mtu),
            "queues": ("interface_queues", interface.queues > 1),
            "qos": ("interface_qos", interface.HasField("qos")),
            "security_group_ids": ("security_groups", interface.security_group_ids),
        }
        for name, (capability, wanted) in asked.items():
            if wanted and interface.HasField("user"):
                field = f"spec.interfaces[{index}].{name}"
                yield UnsupportedError(capability, why="QEMU's own NAT has none", field=field)
