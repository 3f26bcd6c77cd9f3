"""What is wanted of an instance, reckoned alike by every backend."""

import time

from google.protobuf.timestamp_pb2 import Timestamp
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError
from backends.power_states import hidden_blockers, start_blockers

_ACTIVE = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


def changed_metadata(
    metadata: dict[str, str], request: pb.UpdateInstanceMetadataRequest
) -> dict[str, str]:
    """Metadata after a difference was applied."""
    kept = {key: value for key, value in metadata.items() if key not in set(request.remove)}
    return {**kept, **request.set}


def reclaim_time(request: pb.SoftDeleteInstanceRequest, default_s: float) -> Timestamp:
    """When a soft-deleted instance is destroyed."""
    seconds = default_s
    if request.HasField("retention"):
        seconds = request.retention.ToNanoseconds() / 1e9
    moment = Timestamp()
    moment.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return moment


def resume_blockers(instance: pb.Instance, wanted: "PowerState.ValueType") -> list[ContractError]:
    """What stands in the way of bringing an instance to a power state."""
    return start_blockers(instance) if wanted in _ACTIVE else hidden_blockers(instance)
