"""What a domain cannot hold, on any host."""

from collections.abc import Mapping, Sequence

from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import ContractError, InvalidArgumentError
from backends.libvirt.xml.element import is_writable


def unsupported(spec: InstanceSpec) -> Sequence[ContractError]:
    """Parts of a specification that no domain of this backend can have: all of them."""
    return [
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
