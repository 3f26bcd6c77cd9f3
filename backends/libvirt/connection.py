"""The connection to libvirt: its callbacks, its loss, and how it comes back.

    CLOSED ──open──▶ CONNECTED ──close callback, error──▶ LOST ──every 1 s──▶ CONNECTED

Each time it comes back with a new generation of handles (handles.py).
"""

import threading
import time
from collections.abc import Callable

import libvirt
import structlog

from backends.errors import ContractError, UnreachableError
from backends.libvirt.errors import is_lost, translated
from backends.libvirt.handles import Handles

_RETRY_S = 1.0
log = structlog.get_logger()


class Connection:
    """Keeps a generation of handles open until it is closed. Callable from any thread.

    `connected` is called with every new generation, `lost` when one is lost; both
    on a thread of the connection's own.
    """

    def __init__(
        self, uri: str, *, connected: Callable[[Handles], None], lost: Callable[[str], None]
    ) -> None:
        self.uri = uri
        self._connected = connected
        self._lost = lost
        self._handles: Handles | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._broken = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="libvirt-keeper", daemon=True)

    def open(self) -> Handles:
        """Opens the first generation, unless there is one; raises UnreachableError."""
        start_event_loop()
        if self._keeper.is_alive():
            return self.handles
        handles = self._open()
        self._keeper.start()
        return handles

    def close(self) -> None:
        """Comes back no more; the keeper lets go of everything, which may have to wait."""
        self._closed.set()
        self._broken.set()

    @property
    def handles(self) -> Handles:
        """The present generation; raises UnreachableError while there is none."""
        handles = self._handles
        if handles is None:
            raise UnreachableError("libvirt is out of reach")
        return handles

    def suspect(self, error: libvirt.libvirtError) -> None:
        """A call has failed: where the connection has, comes back with new handles."""
        if is_lost(error):
            self._broken.set()

    def _open(self) -> Handles:
        """Raises UnreachableError; then there is no generation."""
        try:
            handles = Handles(self.uri)
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error
        self._broken.clear()
        with self._lock:
            self._handles = handles
        try:
            handles.events.registerCloseCallback(self._closed_by_peer, handles)
            self._connected(handles)
        except (libvirt.libvirtError, ContractError) as error:
            self._drop()
            raise UnreachableError(f"libvirt was lost again: {error}") from error
        return handles

    def _closed_by_peer(
        self, _connection: libvirt.virConnect, _reason: int, generation: Handles
    ) -> None:
        if generation is self._handles:
            self._broken.set()

    def _keep(self) -> None:
        while True:
            self._broken.wait()
            if self._closed.is_set():
                self._drop()
                return
            self._lose()
            while not self._closed.is_set():
                try:
                    self._open()
                    break
                except UnreachableError as error:
                    log.debug("libvirt still out of reach", reason=str(error))
                    self._closed.wait(_RETRY_S)

    def _lose(self) -> None:
        if self._handles is not None:
            self._lost("the connection to libvirt was lost")
        self._drop()

    def _drop(self) -> None:
        """Lets go of the present generation, if there is one.

        It is not closed outright: libvirt would free what a call that another thread
        has in it still uses. The last who knows a connection closes it.
        """
        with self._lock:
            handles, self._handles = self._handles, None
        if handles is None:
            return
        try:
            handles.events.unregisterCloseCallback()
        except libvirt.libvirtError as error:
            # Called already, and with that unregistered.
            log.debug("a close callback has gone", reason=str(error))


_loop_started = threading.Lock()


def start_event_loop() -> None:
    """Starts libvirt's own event loop, once in a process and before the first open."""
    if not _loop_started.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.error("libvirt's event loop failed", reason=str(error))
            time.sleep(0.1)  # what it fails of may last, and a loop that spins would take a core
