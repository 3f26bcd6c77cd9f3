"""Values of the contract in people's words."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_BINARY_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def word(enum: Any, value: int) -> str:
    """An enum's value without its enum's name, e.g. "running"; empty for none.

    A number that the enum lacks is given as it is.
    """
    if not value:
        return ""
    names: dict[int, str] = {number: name for name, number in enum.items()}
    if value not in names:
        return str(value)
    return names[value][prefix_length(enum) :].lower().replace("_", "-")


def prefix_length(enum: Any) -> int:
    """Length of what the names of an enum have in common: its own name and a "_"."""
    zero: str = enum.Name(0)
    return len(zero) - len("UNSPECIFIED")


def kib(size_kib: float) -> str:
    """A size in the largest unit that keeps it exact to a decimal place, e.g. "1.5 GiB"."""
    size, power = size_kib, 0
    while size >= 1024 and power < len(_BINARY_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.1f}".removesuffix(".0") + f" {_BINARY_UNITS[power]}"


def mib(size_mib: int) -> str:
    """As `kib`."""
    return kib(size_mib * 1024)


def byte_size(size_bytes: int) -> str:
    """As `kib`; below 1 KiB in bytes."""
    return kib(size_bytes / 1024) if size_bytes >= 1024 else f"{size_bytes} B"


def when(timestamp: Timestamp) -> str:
    """A time in the local zone to the second; empty for one that is not set."""
    if not timestamp.seconds:
        return ""
    return _local(timestamp).strftime("%Y-%m-%d %H:%M:%S")


def clock(timestamp: Timestamp) -> str:
    """A time of day in the local zone to the millisecond."""
    return _local(timestamp).strftime("%H:%M:%S.%f")[:-3]


def seconds(duration_s: float) -> str:
    """A length of time, e.g. "850 ms", "12.5 s", "3 d 4 h"."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, hours, days = duration_s // 60, duration_s // 3600, duration_s // 86400
    if hours < 1:
        return f"{minutes:.0f} min {duration_s % 60:.0f} s"
    if days < 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{days:.0f} d {hours % 24:.0f} h"


def length(duration: Duration) -> str:
    """As `seconds`, of a message."""
    return seconds(duration.seconds + duration.nanos / 1e9)


def pairs(mapping: Any) -> str:
    """A map as "key=value", sorted."""
    return ", ".join(f"{key}={value}" for key, value in sorted(mapping.items()))


def _local(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=timezone.utc).astimezone()
