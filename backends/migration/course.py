"""The course of a transfer: it is watched, stopped or forced, and its outcome found out.

The guest arrives at the destination and stands still there; it is started by this side's
word, which is given only when its machine here has ended. So whoever loses whom, the guest
that is alive here is the only one that runs, and one that is not is asked for there:

    here    alive ─▶ it has not switched      stuck ─▶ it is the destination's, if that can
            off, gone ─▶ the destination says          start it; else it goes on here

A destination that has to say so and does not answer is asked until it does. A transfer that
may go over to post-copy needs no word: there the destination is always asked.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from virtrpc.v1.event_pb2 import EventType

from backends.contract import Peer
from backends.errors import (
    CancelledError,
    ContractError,
    MigrationFailedError,
    PeerRefusedError,
    PeerUnreachableError,
    UnreachableError,
)
from backends.migration import checks
from backends.migration.answers import NOT_THERE, answered
from backends.migration.book import Migration, MigrationBook, Phase
from backends.migration.driver import Counters, Guest, MigrationDriver, Transfer
from backends.migration.endings import completion, force, reason_of
from backends.migration.progress import PERCENT, PHASE_NAMES, Policy, fill, phase_of
from backends.work import Work

_LOOK_S = 0.05
_COUNT_S = 0.25
_ASK_AGAIN_S = 1.0
# A hypervisor that has just come back sees to its guests itself, one after the other.
_STUCK_S = 2.0
log = structlog.get_logger()


class Course:
    """The course of one transfer, from the source's side."""

    def __init__(
        self, work: Work, *, driver: MigrationDriver, book: MigrationBook, peer: Peer
    ) -> None:
        self._work = work
        self._driver = driver
        self._book = book
        self._peer = peer
        self._word_ms: int | None = 0
        """How long the guest waited for the word; None: until long after its transfer."""
        self.lost = False
        """Memory that the guest needs is gone, with the machine on one of the sides."""

    def run(self, migration: Migration, transfer: Transfer) -> Counters:
        """Moves the guest, and gives what it came to; raises why it is still here."""
        data = transfer.data
        copies = any(disk.storage == checks.COPY for disk in data.disks)
        phase = "COPYING_DISKS" if copies else "COPYING_MEMORY"
        self._book.enter(migration, Phase.Value(f"MIGRATION_PHASE_{phase}"))
        self._work.phase("disks" if copies else "memory", percent=10)
        self._work.step("transfer")
        began = time.monotonic()
        moving = _in_thread(lambda: self._driver.transfer(transfer))
        self._watch(migration, moving, Policy(transfer.options, began))
        return self._outcome(migration, transfer, moving)

    def _watch(self, migration: Migration, moving: "Future[Counters]", policy: Policy) -> None:
        """Until the transfer is over: counts, stops or forces it."""
        counted = 0.0
        while not _is_over(moving, _LOOK_S):
            self._heed(migration)
            now = time.monotonic()
            if now - counted >= _COUNT_S:
                counted = now
                self._count(migration)
                self._enforce(migration, policy.due(now, forced=migration.forced))

    def _heed(self, migration: Migration) -> None:
        """A cancel stops the transfer; the stop of the daemon leaves it to the next start."""
        try:
            self._work.checkpoint()
        except CancelledError as error:
            if error.reason != CancelledError.reason:
                raise
            migration.abort = migration.abort or "request"
        if migration.abort and not migration.post_copy:
            with contextlib.suppress(UnreachableError):  # tried again at the next look
                self._driver.abort(migration.instance_id)

    def _enforce(self, migration: Migration, due: str) -> None:
        if due == "abort":
            migration.abort = migration.abort or "timeout"
        elif due == "force":
            try:
                force(self._driver, self._book, migration, post_copy=migration.post_copy_allowed)
            except ContractError as error:  # due again at the next look, unless it is over
                log.warning("a transfer cannot be forced now", reason=str(error))

    def _count(self, migration: Migration) -> None:
        counters = self._looked_at(migration)
        if counters is None:
            return
        entered = phase_of(counters, migration.phase)
        if entered != migration.phase:
            self._book.enter(migration, entered)
            self._work.phase(PHASE_NAMES[entered], percent=PERCENT[entered])
            if entered == Phase.MIGRATION_PHASE_POST_COPY:
                self._driver.tell(migration.instance_id, EventType.EVENT_TYPE_POSTCOPY_STARTED, "")
        with self._book.change(migration, durable=False) as progress:
            fill(progress, counters)

    def _looked_at(self, migration: Migration) -> Counters | None:
        """How the transfer stands; None where it is not known, or none runs.

        Whatever a look runs into is no end of the transfer, which goes on without anybody
        who looks: to act on it would be to roll back a guest that may just be arriving.
        """
        try:
            counters = self._driver.counters(migration.instance_id)
            if counters is None and migration.phase == Phase.MIGRATION_PHASE_POST_COPY:
                self._tell_a_break(migration)
        except ContractError as error:
            log.info("a transfer cannot be looked at now", reason=str(error))
            return None
        return counters

    def _tell_a_break(self, migration: Migration) -> None:
        """That memory no longer goes over; the hypervisors may be long in agreeing on it."""
        if self._driver.guest(migration.instance_id) is Guest.BROKEN:
            log.warning("the connection broke in post-copy", uri=migration.data.hypervisor_uri)
            self._book.enter(migration, Phase.MIGRATION_PHASE_POST_COPY_BROKEN)
            self._work.phase("post-copy", percent=75, message="the connection is broken")

    def _outcome(
        self, migration: Migration, transfer: Transfer, moving: "Future[Counters]"
    ) -> Counters:
        """What came of the transfer, as destination and hypervisor say."""
        error = moving.exception()
        if error is None:
            return self._with_the_wait(moving.result())
        if not isinstance(error, ContractError):
            raise error
        if isinstance(error, UnreachableError):
            self._settle(migration)
            error = MigrationFailedError(f"the hypervisor was lost meanwhile: {error}")
        return self._found_out(migration, transfer, error)

    def _found_out(
        self, migration: Migration, transfer: Transfer, error: ContractError
    ) -> Counters:
        """What came of a transfer that may have failed with an error."""
        if self._mended(migration, transfer) or self._has_switched(migration):
            log.warning("a transfer was told to have failed, and has not", reason=str(error))
            return Counters()
        raise reason_of(migration, error)

    def _mended(self, migration: Migration, transfer: Transfer) -> bool:
        """Joins what broke in post-copy until all is over, or cannot be any more.

        The guest stands still at the destination until then and is nobody else's: nothing
        is started here again. Whether anything had broken.
        """
        broken = False
        while self._guest(migration) is Guest.BROKEN:
            broken = True
            if migration.phase != Phase.MIGRATION_PHASE_POST_COPY_BROKEN:
                self._tell_a_break(migration)
            self.lost = self._is_lost(migration)
            if self.lost:
                break
            self._join(migration, transfer)
        return broken

    def _join(self, migration: Migration, transfer: Transfer) -> None:
        """One try; returns when it is over."""
        moving = _in_thread(lambda: self._driver.mend(transfer))
        self._watch(migration, moving, Policy(transfer.options, float("inf")))
        error = moving.exception()
        if isinstance(error, UnreachableError):
            self._settle(migration)
        elif isinstance(error, ContractError):
            log.info("not joined again yet", reason=str(error))
            self._pause(_ASK_AGAIN_S)
        elif error is not None:
            raise error

    def _guest(self, migration: Migration) -> Guest:
        """What became of it here, as soon as the hypervisor says."""
        while True:
            try:
                return self._driver.guest(migration.instance_id)
            except UnreachableError as error:
                log.warning("it is not known yet what became of the guest", reason=str(error))
                self._pause(_ASK_AGAIN_S)

    def _is_lost(self, migration: Migration) -> bool:
        """Whether the destination says that it has no machine for the memory any more."""
        try:
            return not self._asked(migration, alive=True)
        except PeerUnreachableError:
            return False

    def _with_the_wait(self, counters: Counters) -> Counters:
        """The hypervisor's downtime ends where the guest could have gone on."""
        if counters.downtime_ms is not None:
            waited = self._word_ms
            counters.downtime_ms = None if waited is None else counters.downtime_ms + waited
        return counters

    def follow(self, migration: Migration, transfer: Transfer) -> Counters:
        """As `run`, of a transfer that an earlier run of the daemon began."""
        self._work.phase("memory", percent=50)
        self._settle(migration)
        restarted = MigrationFailedError("the daemon was restarted meanwhile")
        return self._found_out(migration, transfer, restarted)

    def _settle(self, migration: Migration) -> None:
        """Returns when no transfer runs any more, with a hypervisor that comes and goes."""
        while self._may_run(migration):
            self._heed(migration)
            self._count(migration)
            self._pause(_COUNT_S)

    def _may_run(self, migration: Migration) -> bool:
        try:
            return self._driver.counters(migration.instance_id) is not None
        except ContractError as error:
            log.info("it is not known yet what became of a transfer", reason=str(error))
            return True

    def _pause(self, seconds: float) -> None:
        """Sleeps; a cancel has been heeded already, only the stop of the daemon ends it."""
        try:
            self._work.wait(seconds)
        except CancelledError as error:
            if error.reason != CancelledError.reason:
                raise
            time.sleep(seconds)

    def start_there(self, migration: Migration) -> None:
        """Gives the word: the guest cannot run here any more.

        Raises PeerUnreachableError, or PeerRefusedError where it is not there.
        """
        word = completion(migration)
        word.start_only = True
        with answered(*NOT_THERE):
            self._peer.complete_destination(word)

    def left(self, migration: Migration) -> None:
        """The guest's machine here has ended: if by the switch, the guest goes on there.

        What is not answered now is found out when the transfer is over.
        """
        began_ns, self._word_ms = time.monotonic_ns(), None
        with contextlib.suppress(PeerUnreachableError, PeerRefusedError):
            self.start_there(migration)
            self._word_ms = (time.monotonic_ns() - began_ns) // 1_000_000

    def _has_switched(self, migration: Migration) -> bool:
        """Whether the guest is the destination's; asks both hosts until they answer."""
        while True:
            try:
                return self._decided(migration)
            except UnreachableError as error:
                log.warning("it is not known yet who has the guest", reason=str(error))
                self._pause(_ASK_AGAIN_S)

    def _decided(self, migration: Migration) -> bool:
        guest = self._driver.guest(migration.instance_id)
        if guest is Guest.STUCK:
            self._pause(_STUCK_S)
            guest = self._driver.guest(migration.instance_id)
        if guest is Guest.ALIVE and not migration.post_copy_allowed:
            return False
        switched = self._is_there(migration, guest)
        if guest is Guest.STUCK and switched:
            self._driver.stop_here(migration.instance_id)
        elif guest is Guest.STUCK:
            self._driver.go_on_here(migration)
        return switched

    def _is_there(self, migration: Migration, guest: Guest) -> bool:
        """What the destination says; one that nobody has given the word need not be heard."""
        try:
            return self._asked(migration, alive=guest is not Guest.GONE)
        except PeerUnreachableError:
            if guest is Guest.STUCK and not migration.post_copy_allowed:
                return False
            raise

    def _asked(self, migration: Migration, *, alive: bool) -> bool:
        """Raises PeerUnreachableError where its answer is about anything but the guest."""
        question = completion(migration)
        question.validate_only, question.start_only = True, alive
        try:
            with answered(*NOT_THERE):
                self._peer.complete_destination(question)
        except PeerRefusedError:
            return False
        return True


def _in_thread(work: Callable[[], Counters]) -> "Future[Counters]":
    """Runs it beside the caller, who may stop waiting for it."""
    future: Future[Counters] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="migration", daemon=True).start()
    return future


def _is_over(moving: "Future[Counters]", seconds: float) -> bool:
    try:
        moving.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True
