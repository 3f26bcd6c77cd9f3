"""Many watchers in one process, so that a soak can stop them all in the middle of their streams.

    python -m tests.soak.sleepers ADDRESS EPOCH SEQUENCE COUNT

Prints a line when all watch, and for each how its stream ended: the number it had read
last, the number it was told to go on from, and the reason.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import grpc
from virtrpc.v1 import event_pb2, event_pb2_grpc

from tests.refusals import refusal_of

STREAM_S = 600.0


def main(address: str, epoch: str, sequence: str, count: str) -> None:
    """Watches until the end of all streams."""
    request = event_pb2.WatchEventsRequest()
    request.after.epoch, request.after.sequence = epoch, int(sequence)
    ready = Barrier(int(count) + 1)
    with ThreadPoolExecutor(int(count)) as pool:
        ends = [pool.submit(_watch, address, request, ready) for _ in range(int(count))]
        ready.wait()
        print("watching", flush=True)
        for end in ends:
            print(json.dumps(end.result()), flush=True)


def _watch(
    address: str, request: event_pb2.WatchEventsRequest, ready: Barrier
) -> tuple[int, str, str]:
    last = request.after.sequence
    # A subchannel of its own: what one does not read holds up no other.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        stream = event_pb2_grpc.EventServiceStub(channel).WatchEvents(request, timeout=STREAM_S)
        try:
            for response in stream:
                if not ready.broken and last == request.after.sequence:
                    ready.wait()
                last = response.event.cursor.sequence or last
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            return last, refusal.metadata.get("sequence", ""), refusal.reason
    return last, "", "ended by itself"


if __name__ == "__main__":
    main(*sys.argv[1:])
