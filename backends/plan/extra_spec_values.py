"""Texts of Nova's extra specs ↔ values. Readers raise ValueError with what was expected."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_MOST_CPUS = 4096  # a set with more is not meant, and costs memory to write down
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})
_PAGE_SIZE = re.compile(r"([0-9]{1,12})(?:([kKMGT])i?)?[bB]?")
_KIB_OF_UNIT = {"k": 1, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}
_CPU_RANGE = re.compile(r"(\^?)([0-9]{1,4})(?:-([0-9]{1,4}))?")
T = TypeVar("T")
Reader = Callable[[str], T]


@dataclass(frozen=True)
class CpuSet:
    """CPUs by number, as "0-3,^2" or, of all but some, "^0"."""

    included: frozenset[int]
    excluded: frozenset[int]

    def among(self, count: int) -> frozenset[int]:
        """Those meant of the CPUs 0 to `count` - 1; may hold others, if those were named."""
        return (self.included or frozenset(range(count))) - self.excluded


def word(*words: str) -> Reader[str]:
    """One of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def flag(text: str) -> bool:
    """Yes or no, in the words that OpenStack takes for it."""
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("true or false")
    return lowered in _TRUE


def count(least: int = 1, most: int = 1 << 31) -> Reader[int]:
    """A whole number within bounds."""

    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,13}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return read


def cpu_set(text: str) -> CpuSet:
    """CPUs, ranges of them, and with "^" those that are not meant."""
    included: set[int] = set()
    excluded: set[int] = set()
    for part in text.split(","):
        found = _CPU_RANGE.fullmatch(part.strip())
        first, last = (int(found[2]), int(found[3] or found[2])) if found else (1, 0)
        if found is None or not first <= last < _MOST_CPUS:
            raise ValueError('CPUs such as "0-3,^2"')
        (excluded if found[1] else included).update(range(first, last + 1))
    return CpuSet(frozenset(included), frozenset(excluded))


def page_size(text: str) -> str | int:
    """`small`, `large`, `any`, or a size in KiB; units are powers of 1024, none is KiB."""
    if text in ("small", "large", "any"):
        return text
    found = _PAGE_SIZE.fullmatch(text)
    kib = int(found[1]) * _KIB_OF_UNIT[found[2] or "k"] if found else 0
    if not kib:
        raise ValueError('small, large, any or a size such as "2MB"')
    return kib
