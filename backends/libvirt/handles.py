"""One generation of connections: one for events, and one for each thread that makes calls.

Threads that wait in calls of the same connection at the same time can bring down the
process: libvirt before 10.4.0 then reads what was on the stack of another thread, as it
surely does when libvirtd hangs (CVE-2024-4418). With a connection of its own no thread
waits behind another's call either, and a libvirtd serves thousands.
"""

import threading
from concurrent.futures import Future

import libvirt

from backends.errors import UnreachableError
from backends.libvirt.embedded import is_embedded
from backends.libvirt.errors import translated

# A libvirtd that answers nothing counts as lost after (count + 1) intervals: 16 s.
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 4, 3
_OPEN_TIMEOUT_S = _KEEPALIVE_INTERVAL_S * (_KEEPALIVE_COUNT + 1)


class Handles:
    """Connections by the thread that asks. A connection is for the calls of that thread only."""

    def __init__(self, uri: str) -> None:
        """Opens the one for events; raises libvirt.libvirtError."""
        self._uri = uri
        self._of_thread = threading.local()
        self.events = _open(uri)
        # The embedded driver has no wire to race on, and registers itself anew with every
        # open, some twenty times at most ("Too many drivers"): all threads share one.
        self._shared = self.events if is_embedded(uri) else None

    @property
    def own(self) -> libvirt.virConnect:
        """The calling thread's, opened at its first call; raises UnreachableError."""
        if self._shared is not None:
            return self._shared
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._opened_in_time()
        return connection

    def _opened_in_time(self) -> libvirt.virConnect:
        """An open has no keepalive yet: where libvirtd hangs it would wait for ever."""
        opened: Future[libvirt.virConnect] = Future()
        thread = threading.Thread(target=_open_into, args=(self._uri, opened), daemon=True)
        thread.start()
        try:
            return opened.result(_OPEN_TIMEOUT_S)
        except TimeoutError:
            raise UnreachableError(f"libvirt did not answer for {_OPEN_TIMEOUT_S} s") from None
        except libvirt.libvirtError as error:
            raise UnreachableError(str(translated(error))) from error


def _open_into(uri: str, opened: "Future[libvirt.virConnect]") -> None:
    try:
        opened.set_result(_open(uri))
    except libvirt.libvirtError as error:
        opened.set_exception(error)


def _open(uri: str) -> libvirt.virConnect:
    connection = libvirt.open(uri)
    try:
        connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        # Drivers inside the process have no wire that could break.
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    return connection
