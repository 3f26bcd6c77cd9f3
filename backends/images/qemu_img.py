"""qemu-img, kept small: without privileges, with limits, and only on images that were inspected.

As root it runs as `nobody`, so a file that it is to write is made beforehand and given to
it; what it is to read must be readable by everybody, or by the user that it is run as.
"""

import contextlib
import errno
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.errors import ContractError, HypervisorError, NoRoomError

TIMEOUT_S = 300.0
_MEMORY_BYTES = 2 << 30
_CPU_S = 600
_OPEN_FILES = 128
_TICK_S = 0.25
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a filesystem that can hold no more."""
_SAID_WHEN_FULL = (b"No space left on device", b"Disk quota exceeded", b"File too large")


def _nothing() -> None:
    """Nobody wants to know of the time that passes."""


@dataclass(frozen=True)
class Account:
    """A user that a tool is run as."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> "Account | None":
        """`nobody`; None where the daemon has no privileges itself."""
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @classmethod
    def owning(cls, path: Path) -> "Account | None":
        """The owner of a file that is not for everybody, as a guest's disk; root excepted."""
        status = path.stat()
        if os.geteuid() != 0 or status.st_uid == 0:
            return cls.unprivileged()
        return cls(status.st_uid, status.st_gid)


def run(
    command: str,
    *arguments: str,
    account: Account | None = None,
    max_file_bytes: int | None = None,
    timeout_s: float = TIMEOUT_S,
    tick: Callable[[], None] = _nothing,
) -> bytes:
    """Runs `qemu-img COMMAND`; gives what it says. Blocks.

    It writes no file beyond `max_file_bytes`. `tick` is called a few times a second, and
    ends it by raising. Raises NoRoomError on a full disk, else HypervisorError with its
    last line.
    """
    confined = _confined(account or Account.unprivileged(), max_file_bytes)
    with subprocess.Popen(
        [*confined, "qemu-img", command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    ) as process:
        try:
            said, complaint = _ended(process, command, timeout_s, tick)
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return said
    ended_by_limit = process.returncode == -signal.SIGXFSZ
    if ended_by_limit or says_full(complaint):
        raise _full()
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    raise HypervisorError(f"qemu-img {command} failed: {lines[-1] if lines else 'no message'}")


def says_full(complaint: bytes) -> bool:
    """Whether QEMU's programs complain of a full disk: told by the C library's message alone."""
    return any(message in complaint for message in _SAID_WHEN_FULL)


def make_output(path: Path) -> None:
    """Makes an empty file that qemu-img may write, where there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_make(error) from error
    try:
        account = Account.unprivileged()
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def take_output(path: Path) -> None:
    """Takes a file back that qemu-img has written; libvirt gives it to QEMU's user itself."""
    if os.geteuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)


@contextlib.contextmanager
def lent(path: Path) -> Iterator[None]:
    """A file of root's is `nobody`'s inside: qemu-img, which never is root, may write it."""
    owner, account = path.stat(), Account.unprivileged()
    if account is None or owner.st_uid != 0:
        yield
        return
    os.chown(path, account.uid, account.gid)
    try:
        yield
    finally:
        os.chown(path, owner.st_uid, owner.st_gid)


def _ended(
    process: "subprocess.Popen[bytes]", command: str, timeout_s: float, tick: Callable[[], None]
) -> tuple[bytes, bytes]:
    """What a program has said and complained of, at its end."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=min(_TICK_S, timeout_s))
        tick()
    raise HypervisorError(f"qemu-img {command} took longer than {timeout_s:g} s")


def _confined(account: Account | None, max_file_bytes: int | None) -> Sequence[str]:
    """The command line that sets limits and drops privileges, of util-linux."""
    limits = [f"--as={_MEMORY_BYTES}", f"--cpu={_CPU_S}", f"--nofile={_OPEN_FILES}", "--core=0"]
    if max_file_bytes is not None:
        limits.append(f"--fsize={max_file_bytes}")
    drop = ["setpriv", "--no-new-privs", "--pdeathsig=KILL"]
    if account is not None:
        drop += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        drop += ["--inh-caps=-all"]
    return ["prlimit", *limits, *drop]


def _cannot_make(error: OSError) -> ContractError:
    if error.errno in FULL:
        return _full()
    return HypervisorError(f"a disk cannot be made: {error.strerror}")


def _full() -> ContractError:
    return NoRoomError("the filesystem of the disks is full", reason="NO_ROOM")
