"""Devices that a guest was asked to release: what QEMU says of them, and who waits for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Removal:
    """One device's."""

    def __init__(self) -> None:
        self.refused = False
        """The guest has said no since it was last asked."""
        self._said = threading.Event()

    def asked(self) -> None:
        """The guest is asked anew."""
        self.refused = False
        self._said.clear()

    def wait(self, seconds: float) -> bool:
        """Waits until something is said; False where nothing is."""
        return self._said.wait(seconds)

    def say(self, *, refused: bool) -> None:
        """It has gone, or will not."""
        self.refused = refused
        self._said.set()


class Removals:
    """Those that are waited for. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], Removal] = {}

    @contextmanager
    def expected(self, instance_id: str, alias: str) -> Iterator[Removal]:
        """Somebody waits for a device inside."""
        removal = Removal()
        with self._lock:
            self._waiting[instance_id, alias] = removal
        try:
            yield removal
        finally:
            with self._lock:
                self._waiting.pop((instance_id, alias), None)

    def said(self, instance_id: str, alias: str, *, refused: bool) -> None:
        """QEMU has said that a device has gone, or that the guest refuses."""
        with self._lock:
            removal = self._waiting.get((instance_id, alias))
        if removal is not None:
            removal.say(refused=refused)
