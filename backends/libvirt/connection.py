"""Connections to libvirt: one for each class of calls, with callbacks, coming back after a loss.

A libvirt connection serves five calls at a time, so reads, jobs, urgent verbs and
events have one each: a lookup never waits behind a spawn.

    CLOSED ──open──▶ CONNECTED ──close callback, error──▶ LOST ──every 1 s──▶ CONNECTED
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import libvirt
import structlog

from backends.errors import UnreachableError
from backends.libvirt.errors import is_lost, translated

_RETRY_S = 1.0
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 5, 3
log = structlog.get_logger()


@dataclass(frozen=True)
class Handles:
    """One generation of connections."""

    reads: libvirt.virConnect
    jobs: libvirt.virConnect
    urgent: libvirt.virConnect
    events: libvirt.virConnect

    @classmethod
    def open(cls, uri: str) -> "Handles":
        """Opens all of them; raises libvirt.libvirtError."""
        opened: list[libvirt.virConnect] = []
        try:
            for _ in range(4):
                opened.append(libvirt.open(uri))
        except libvirt.libvirtError:
            for connection in opened:
                connection.close()
            raise
        return cls(*opened)

    def all(self) -> tuple[libvirt.virConnect, ...]:
        """Every connection."""
        return (self.reads, self.jobs, self.urgent, self.events)


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
        """Opens the first generation; raises UnreachableError."""
        start_event_loop()
        handles = self._open()
        self._keeper.start()
        return handles

    def close(self) -> None:
        """Closes everything and comes back no more."""
        self._closed.set()
        self._broken.set()
        with self._lock:
            handles, self._handles = self._handles, None
        if handles is not None:
            _close_all(handles)

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
        try:
            handles = Handles.open(self.uri)
            self._watch(handles)
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error
        with self._lock:
            self._handles = handles
        self._broken.clear()
        self._connected(handles)
        return handles

    def _watch(self, handles: Handles) -> None:
        for connection in handles.all():
            try:
                connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
                connection.registerCloseCallback(self._closed_by_peer, None)
            except libvirt.libvirtError as error:
                # Drivers inside the process have no wire that could break.
                if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                    raise

    def _closed_by_peer(self, _connection: libvirt.virConnect, _reason: int, _data: None) -> None:
        self._broken.set()

    def _keep(self) -> None:
        while True:
            self._broken.wait()
            if self._closed.is_set():
                return
            self._let_go()
            while not self._closed.is_set():
                try:
                    self._open()
                    break
                except UnreachableError as error:
                    log.debug("libvirt still out of reach", reason=str(error))
                    self._closed.wait(_RETRY_S)

    def _let_go(self) -> None:
        with self._lock:
            handles, self._handles = self._handles, None
        if handles is not None:
            self._lost("the connection to libvirt was lost")
            _close_all(handles)


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
            time.sleep(0.1)


def _close_all(handles: Handles) -> None:
    for connection in handles.all():
        try:
            connection.close()
        except libvirt.libvirtError as error:
            log.debug("a libvirt connection did not close", reason=str(error))
