"""Events of the contract that are about an instance."""

from virtrpc.v1.event_pb2 import Event, EventType
from virtrpc.v1.instance_pb2 import Instance


def event_of(kind: "EventType.ValueType", instance: Instance, detail: str = "") -> Event:
    """An event; `instance` has at least its id, its name and, where it matters, its power state."""
    return Event(
        type=kind,
        instance_id=instance.instance_id,
        instance_name=instance.name,
        power_state=instance.power_state,
        detail=detail,
    )
