"""`virtrpcd` that dies while a guest of its is held: `before` QEMU turns the disk, or `after`.

python -m tests.libvirt.dying_in_hold SIDE [flags of virtrpcd]
"""

import os
import sys

import backends.libvirt.holds
from backends.libvirt.block_jobs import BlockJob
from service.main import main

DIED = 137


def die(_: object) -> None:
    """As if killed."""
    os._exit(DIED)


if __name__ == "__main__":
    side = sys.argv.pop(1)
    if side == "before":
        setattr(BlockJob, "_turn", die)  # noqa: B010 - not a public name of it
    else:
        setattr(backends.libvirt.holds, "_release", die)  # noqa: B010
    main()
