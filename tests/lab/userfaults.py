"""What post-copy needs of the kernel: QEMU, which is not root, is told of pages that it lacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ALLOWED = Path("/proc/sys/vm/unprivileged_userfaultfd")


@contextmanager
def allowed_userfaults() -> Iterator[None]:
    """Inside, everybody may be told of his page faults; outside, who might before."""
    before = _ALLOWED.read_text(encoding="ascii")
    _ALLOWED.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        _ALLOWED.write_text(before, encoding="ascii")
