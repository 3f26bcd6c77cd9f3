"""Durations of requests."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


def seconds(request: Message, field: str, default: float) -> float:
    """A duration of a request in seconds, or what holds where it is unset."""
    if not request.HasField(field):
        return default
    duration: Duration = getattr(request, field)
    return duration.ToNanoseconds() / 1e9
