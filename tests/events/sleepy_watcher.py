"""A watcher in a process of its own, so that a test can stop it in the middle of a stream.

    python -m tests.events.sleepy_watcher ADDRESS EPOCH SEQUENCE

Follows the events after a cursor until the stream ends, and says how as JSON lines:
the number of every event, then code, reason and metadata of the end.
"""

import json
import sys

import grpc
from virtrpc.v1 import event_pb2, event_pb2_grpc

from tests.refusals import refusal_of


def main(address: str, epoch: str, sequence: str) -> None:
    """Watches until the end."""
    request = event_pb2.WatchEventsRequest()
    request.after.epoch, request.after.sequence = epoch, int(sequence)
    request.heartbeat.FromSeconds(60)
    with grpc.insecure_channel(address) as channel:
        stub = event_pb2_grpc.EventServiceStub(channel)
        try:
            for response in stub.WatchEvents(request, timeout=120):
                print(json.dumps(response.event.cursor.sequence), flush=True)
        except grpc.RpcError as error:
            end = refusal_of(error)
            code = end.code.name if end.code is not None else ""
            print(json.dumps([code, end.reason, dict(end.metadata)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
