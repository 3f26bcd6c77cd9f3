"""EventService: snapshot, replay and follow, joined without a gap."""

from collections.abc import AsyncIterator, Callable

from virtrpc.v1 import event_pb2 as pb
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import InstanceView

from service.dispatcher import Call
from service.events.hub import Hub, Watcher
from service.truth import Truth, viewed

_DEFAULT_HEARTBEAT_S = 10.0


class EventVerbs:
    """WatchEvents."""

    def __init__(self, hub: Hub, truth: Truth) -> None:
        self._hub = hub
        self._truth = truth

    async def watch_events(
        self, request: pb.WatchEventsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchEventsResponse | bytes]:
        """See EventService.WatchEvents.

        The watcher receives from its first moment; what was delivered before it
        is replayed from the log, what comes twice is dropped by sequence.
        """
        wants = wanted_by(request)
        with Watcher(self._hub, wants=wants) as watcher:
            joined_at = sent = self._hub.delivered
            gap = None
            if request.HasField("after"):
                gap = await self._gap(request.after, joined_at)
                sent = request.after.sequence if gap is None else joined_at
                if gap is not None:
                    yield _response(gap, watcher, joined_at)
            if request.snapshot and (gap is not None or not request.HasField("after")):
                # What is pending has had its effect on the truth already.
                joined_at = sent = self._hub.sequence
                events = self._snapshot()
                await self._hub.reached(sent)
                for event in events:
                    if wants(event):
                        yield _response(event, watcher, sent)
            async for published in watcher.replay(after=sent, through=joined_at):
                sent = published.sequence
                if wants(published.event):
                    yield published.response
            async for response in self._follow(watcher, request, sent=max(sent, joined_at)):
                yield response

    async def _follow(
        self, watcher: Watcher, request: pb.WatchEventsRequest, *, sent: int
    ) -> AsyncIterator[pb.WatchEventsResponse | bytes]:
        heartbeat_s = _DEFAULT_HEARTBEAT_S
        if request.HasField("heartbeat"):
            heartbeat_s = request.heartbeat.ToNanoseconds() / 1e9
        while True:
            published = await watcher.next(sent=sent, timeout_s=heartbeat_s)
            if published is None:
                sent = max(sent, self._hub.delivered)
                beat = pb.Event(type=EventType.EVENT_TYPE_HEARTBEAT)
                yield _response(beat, watcher, sent)
            elif published.sequence > sent:
                sent = published.sequence
                yield published.response

    async def _gap(self, cursor: pb.EventCursor, joined_at: int) -> pb.Event | None:
        """The GAP that a cursor begins with; None where nothing was lost."""
        event = pb.Event(type=EventType.EVENT_TYPE_GAP)
        if cursor.epoch != self._hub.epoch or cursor.sequence > joined_at:
            event.detail = "another epoch"
            return event
        oldest = await self._hub.oldest()
        if cursor.sequence >= oldest - 1:
            return None
        event.detail = "expired"
        event.lost = joined_at - cursor.sequence
        return event

    def _snapshot(self) -> list[pb.Event]:
        events = [
            pb.Event(
                type=EventType.EVENT_TYPE_SNAPSHOT,
                instance_id=instance.instance_id,
                instance_name=instance.name,
                power_state=instance.power_state,
                instance=viewed(instance, InstanceView.INSTANCE_VIEW_BASIC),
            )
            for instance in self._truth.all()
        ]
        return [*events, pb.Event(type=EventType.EVENT_TYPE_SNAPSHOT_END)]


def _response(event: pb.Event, watcher: Watcher, sequence: int) -> pb.WatchEventsResponse:
    """An event of the stream itself: it has the cursor of what was sent before it."""
    event.cursor.epoch = watcher.epoch
    event.cursor.sequence = sequence
    event.time.GetCurrentTime()
    return pb.WatchEventsResponse(event=event)


def wanted_by(request: pb.WatchEventsRequest) -> Callable[[pb.Event], bool]:
    """Which events a watcher asked for; those of the stream itself always are."""
    types = frozenset(request.types)
    instance_ids = frozenset(i.lower() for i in request.instance_ids)

    def wants(event: pb.Event) -> bool:
        if event.type >= EventType.EVENT_TYPE_RESYNC and not event.instance_id:
            return True
        if instance_ids and event.instance_id and event.instance_id not in instance_ids:
            return False
        return not types or event.type in types or event.type >= EventType.EVENT_TYPE_RESYNC

    return wants
