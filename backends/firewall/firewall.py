"""Filtering on this host: what is kept, what of it is in force, what is held back.

    change ─▶ kept in the book ─▶ in force
                    ╰─ held back, while a batch is open ─▶ in force when it ends

A batch ends when it is asked to, after its time, or with the daemon.
"""

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from virtrpc.v1.firewall_pb2 import SecurityGroup
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.errors import ContractError, HypervisorError, NoRoomError
from backends.firewall.book import FilterBook
from backends.firewall.filters import Filter
from backends.firewall.groups import remote_groups
from backends.firewall.nft import DEFAULT_TIMEOUT_S
from backends.firewall.ports import host_rules
from backends.firewall.ruleset import Ruleset
from backends.plan.interfaces import kind_of, with_mac

MOST_GROUPS = 4096
_RETRY_S = 5.0
log = structlog.get_logger()


class HostFirewall:
    """All filtered interfaces of the host. Callable from any thread; changes take turns."""

    def __init__(self, book: FilterBook, kernel: Filter) -> None:
        self._book = book
        self._filter = kernel
        self._lock = threading.RLock()
        self._groups: dict[str, SecurityGroup] = {}
        """As they are in force."""
        self._interfaces: dict[str, Sequence[InterfaceSpec]] = {}
        """As they are in force."""
        self._held: set[str] = set()
        """Instances whose rules wait for the end of the batch."""
        self._batch_ends_s = 0.0  # time.time()
        self._timer: threading.Timer | None = None

    def restore(self) -> None:
        """Puts in force what an earlier run has kept; once, before anything else."""
        with self._lock:
            self._book.load()
            try:
                self._apply(None)
            except ContractError as error:
                log.error("filtering is not in force yet", why=str(error), retry_in_s=_RETRY_S)
                self._apply_later(_RETRY_S)

    def close(self) -> None:
        """Applies nothing by itself any more; what is in force stays."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()

    @property
    def deferring(self) -> bool:
        """A batch is open."""
        return time.time() < self._batch_ends_s

    @property
    def groups(self) -> Mapping[str, SecurityGroup]:
        """All groups that the host was given."""
        return self._book.groups

    def interfaces_of(self, instance_id: str) -> Sequence[InterfaceSpec]:
        """The interfaces of an instance that are filtered."""
        return self._book.interfaces.get(instance_id, ())

    def users_of(self, *group_ids: str) -> list[str]:
        """Instances that have one of the groups, or one whose rules name it."""
        concerned = set(group_ids)
        concerned |= {
            group_id
            for group_id, group in self._book.groups.items()
            if not concerned.isdisjoint(remote_groups(group))
        }
        return sorted(
            instance_id
            for instance_id, interfaces in self._book.interfaces.items()
            if any(concerned & set(interface.security_group_ids) for interface in interfaces)
        )

    def too_many(self, groups: Iterable[SecurityGroup]) -> list[ContractError]:
        """That the host keeps so many groups."""
        ids = {group.security_group_id for group in groups} | set(self._book.groups)
        if len(ids) <= MOST_GROUPS:
            return []
        why = f"the host keeps {MOST_GROUPS} security groups at most"
        return [NoRoomError(why, reason="TOO_MANY_GROUPS")]

    def is_superseded(self, group: SecurityGroup) -> bool:
        """A newer revision of a group is known."""
        known = self._book.groups.get(group.security_group_id)
        return known is not None and 0 < group.revision < known.revision

    def take_groups(self, groups: Iterable[SecurityGroup]) -> set[str]:
        """Takes groups in place of those known; gives the instances that this concerns.

        Raises HypervisorError or TimedOutError; then all is as it was.
        """
        with self._lock:
            newer = [group for group in groups if not self.is_superseded(group)]
            changed = [g for g in newer if self._book.groups.get(g.security_group_id) != g]
            with self._kept_or_not(group_ids=[g.security_group_id for g in changed]):
                for group in changed:
                    self._book.keep_group(group)
                concerned = set(self.users_of(*(g.security_group_id for g in changed)))
                self._in_force_or_held(concerned)
            for group in changed:
                self._forget_where_unused(group)
            return concerned

    def forget_unused(self, group_ids: Iterable[str]) -> None:
        """Forgets groups, but for those that an interface has or the rules of another name."""
        with self._lock:
            going = {g for g in group_ids if g in self._book.groups and not self.users_of(g)}
            staying = [g for key, g in self._book.groups.items() if key not in going]
            for group_id in going - {name for group in staying for name in remote_groups(group)}:
                self._book.forget_group(group_id)

    def put(
        self, instance_id: str, interfaces: Iterable[InterfaceSpec], *, at_once: bool = True
    ) -> None:
        """Filters interfaces of an instance, those that it has and that can be filtered.

        Its others are left as they are. Raises as `take_groups`.
        """
        with self._lock:
            kept = {i.port_id: i for i in self.interfaces_of(instance_id)}
            new = {
                i.port_id: with_mac(instance_id, i)
                for i in interfaces
                if _is_filtered(i) or i.port_id in kept
            }
            if not new:
                return
            if {**kept, **new} == kept and instance_id in self._interfaces:
                return
            with self._kept_or_not(instance_id=instance_id):
                self._book.keep_interfaces(instance_id, [*{**kept, **new}.values()])
                if at_once:
                    self._apply({instance_id})
                else:
                    self._in_force_or_held({instance_id})

    def drop(self, instance_id: str, port_ids: Collection[str] | None = None) -> list[str]:
        """Filters interfaces no more, all of an instance or some; gives those there were."""
        with self._lock:
            kept = self.interfaces_of(instance_id)
            gone = [i.port_id for i in kept if port_ids is None or i.port_id in port_ids]
            if gone:
                with self._kept_or_not(instance_id=instance_id):
                    left = [i for i in kept if i.port_id not in gone]
                    self._book.keep_interfaces(instance_id, left)
                    self._apply({instance_id})
            return gone

    def ensure(self, instance_id: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Returns when an instance's rules are in force, asked of the kernel itself."""
        with self._lock:
            end = time.monotonic() + timeout_s
            rules = self._apply({instance_id}, with_groups=True, timeout_s=timeout_s)
            missing = self._filter.missing(rules, timeout_s=max(0.1, end - time.monotonic()))
            if missing:
                log.warning("rules had gone from the kernel", missing=len(missing))
                self._filter.put(rules, timeout_s=max(0.1, end - time.monotonic()))

    def defer(self, timeout_s: float) -> float:
        """Holds changes back for so long; gives when it ends, in seconds since the epoch."""
        with self._lock:
            if time.time() + timeout_s > self._batch_ends_s:
                self._batch_ends_s = time.time() + timeout_s
                self._apply_later(timeout_s)
            return self._batch_ends_s

    def apply(self) -> list[str]:
        """Ends the batch; gives the instances whose rules were held back.

        Raises HypervisorError: they keep the former ones, and are tried again.
        """
        with self._lock:
            self._batch_ends_s = 0.0
            if self._timer is not None:
                self._timer.cancel()
            held = sorted(self._held)
            try:
                self._apply(None)
            except ContractError as error:
                self._apply_later(_RETRY_S)
                first = {"instance_id": held[0]} if held else {}
                raise HypervisorError(str(error), metadata=first) from error
            return held

    def _in_force_or_held(self, instance_ids: set[str]) -> None:
        if self.deferring:
            self._held |= instance_ids
        else:
            self._apply(None)

    def _apply(
        self,
        instance_ids: set[str] | None,
        *,
        with_groups: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Ruleset:
        """Puts everything in force; in a batch these instances, and the rest as it is."""
        groups, interfaces = dict(self._book.groups), dict(self._book.interfaces)
        if self.deferring and instance_ids is not None:
            fresh = self._groups_of(instance_ids) if with_groups else set[str]()
            kept = {g: group for g, group in self._groups.items() if g not in fresh}
            groups |= kept
            others = {i: its for i, its in self._interfaces.items() if i not in instance_ids}
            interfaces = others | {i: interfaces[i] for i in instance_ids if i in interfaces}
        rules = host_rules([i for its in interfaces.values() for i in its], groups)
        self._filter.put(rules, timeout_s=timeout_s)
        self._groups, self._interfaces = groups, interfaces
        self._held -= instance_ids or self._held
        return rules

    def _groups_of(self, instance_ids: set[str]) -> set[str]:
        """Groups of instances, and those that their rules name."""
        own = {
            group_id
            for instance_id in instance_ids
            for interface in self.interfaces_of(instance_id)
            for group_id in interface.security_group_ids
        }
        known = [self._book.groups[group_id] for group_id in own if group_id in self._book.groups]
        return own.union(*(remote_groups(group) for group in known))

    def _forget_where_unused(self, group: SecurityGroup) -> None:
        group_id = group.security_group_id
        empty = not group.rules and not group.member_addresses
        if empty and not self.users_of(group_id) and not self._is_named(group_id):
            self._book.forget_group(group_id)

    def _is_named(self, group_id: str) -> bool:
        others = (g for g in self._book.groups.values() if g.security_group_id != group_id)
        return any(group_id in remote_groups(group) for group in others)

    @contextmanager
    def _kept_or_not(
        self, *, group_ids: Sequence[str] = (), instance_id: str = ""
    ) -> Iterator[None]:
        """What fails inside leaves the book as it was."""
        groups = {group_id: self._book.groups.get(group_id) for group_id in group_ids}
        interfaces = self.interfaces_of(instance_id)
        try:
            yield
        except (ContractError, OSError) as error:
            self._undo(groups, instance_id, interfaces)
            if isinstance(error, OSError):
                raise HypervisorError(f"filtering cannot be kept: {error}") from error
            raise

    def _undo(
        self,
        groups: Mapping[str, SecurityGroup | None],
        instance_id: str,
        interfaces: Sequence[InterfaceSpec],
    ) -> None:
        for group_id, group in groups.items():
            if group is None:
                self._book.forget_group(group_id)
            else:
                self._book.keep_group(group)
        if instance_id:
            self._book.keep_interfaces(instance_id, interfaces)

    def _apply_later(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(delay_s, self._apply_by_itself)
        self._timer.name, self._timer.daemon = "filter-batch", True
        self._timer.start()

    def _apply_by_itself(self) -> None:
        try:
            self.apply()
        except ContractError as error:
            log.error("filtering is not in force yet", why=str(error), retry_in_s=_RETRY_S)


def _is_filtered(interface: InterfaceSpec) -> bool:
    """There is something to look at, and somebody to see it."""
    watched = bool(interface.security_group_ids) or not interface.port_security_disabled
    return kind_of(interface).filtered and watched
