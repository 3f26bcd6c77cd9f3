"""Wakes those who follow console logs, by inotify; and keeps all logs within their bounds."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inotify_simple import INotify, flags

_MASK = flags.MODIFY | flags.CREATE | flags.DELETE
# QEMU writes a log byte by byte. Equal events that nobody has read yet are one event.
_REST_S = 0.003


class ConsoleWatch:
    """One inotify descriptor on the event loop for all followers. Event loop only."""

    def __init__(self) -> None:
        self._inotify = INotify(nonblocking=True)
        self._followers: dict[Path, set[asyncio.Event]] = {}
        self._descriptors: dict[int, Path] = {}
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Wakes everyone and watches no more."""
        self._loop.remove_reader(self._inotify.fileno())
        if self._resting is not None:
            self._resting.cancel()
        self.wake_all()
        self._inotify.close()

    def wake_all(self) -> None:
        """Makes every follower look again: at its log, and whether it ends."""
        for events in self._followers.values():
            for event in events:
                event.set()

    @contextmanager
    def watching(self, path: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever the log changes, or its folder does.

        The folder is watched, so that a log may appear later, or go.
        """
        changed = asyncio.Event()
        folder = path.parent
        followers = self._followers.setdefault(folder, set())
        followers.add(changed)
        self._watch(folder)
        try:
            yield changed
        finally:
            followers.discard(changed)
            if not followers:
                self._forget(folder)

    def _watch(self, folder: Path) -> None:
        """Watches a folder, which may have been made anew since it was watched before."""
        if not self._inotify.closed:
            with suppress(FileNotFoundError, NotADirectoryError):
                self._descriptors[self._inotify.add_watch(folder, _MASK)] = folder

    def _forget(self, folder: Path) -> None:
        self._followers.pop(folder, None)
        for descriptor, watched in list(self._descriptors.items()):
            if watched == folder:
                del self._descriptors[descriptor]
                if not self._inotify.closed:
                    with suppress(OSError):  # the watch has gone with the folder
                        self._inotify.rm_watch(descriptor)

    def _listen(self) -> None:
        self._loop.add_reader(self._inotify.fileno(), self._read)

    def _read(self) -> None:
        """Wakes whom it concerns, and then listens to nobody for a moment."""
        self._loop.remove_reader(self._inotify.fileno())
        self._resting = self._loop.call_later(_REST_S, self._listen)
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self.wake_all()
            folder = self._descriptors.get(event.wd)
            if event.mask & flags.IGNORED:
                self._descriptors.pop(event.wd, None)
            for changed in self._followers.get(folder, ()) if folder else ():
                changed.set()
