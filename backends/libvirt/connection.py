"""Connections to libvirt: one for each class of calls, with callbacks, coming back after a loss.

A libvirt connection serves five calls at a time, so reads, jobs, urgent verbs, events
and samples have one each: a lookup never waits behind a spawn.

    CLOSED ──open──▶ CONNECTED ──close callback, error──▶ LOST ──every 1 s──▶ CONNECTED
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import libvirt
import structlog

from backends.errors import ContractError, UnreachableError
from backends.libvirt.errors import is_lost, translated

_RETRY_S = 1.0
# A libvirtd that answers nothing counts as lost after (count + 1) intervals: 16 s.
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 4, 3
log = structlog.get_logger()


@dataclass(frozen=True)
class Handles:
    """One generation of connections."""

    reads: libvirt.virConnect
    jobs: libvirt.virConnect
    urgent: libvirt.virConnect
    events: libvirt.virConnect
    samples: libvirt.virConnect

    @classmethod
    def open(cls, uri: str) -> "Handles":
        """Opens all of them; raises libvirt.libvirtError."""
        return cls(*(libvirt.open(uri) for _ in range(5)))

    def all(self) -> tuple[libvirt.virConnect, ...]:
        """Every connection."""
        return (self.reads, self.jobs, self.urgent, self.events, self.samples)


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
            handles = Handles.open(self.uri)
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error
        self._broken.clear()
        with self._lock:
            self._handles = handles
        try:
            self._watch(handles)
            self._connected(handles)
        except (libvirt.libvirtError, ContractError) as error:
            self._drop()
            raise UnreachableError(f"libvirt was lost again: {error}") from error
        return handles

    def _watch(self, handles: Handles) -> None:
        for connection in handles.all():
            try:
                connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
                connection.registerCloseCallback(self._closed_by_peer, handles)
            except libvirt.libvirtError as error:
                # Drivers inside the process have no wire that could break.
                if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                    raise

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
        for connection in handles.all() if handles is not None else ():
            try:
                connection.unregisterCloseCallback()
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
            time.sleep(0.1)
