"""The hub: everything once, in order, to everyone who keeps up; the others are told."""

import asyncio
from pathlib import Path

import pytest
from virtrpc.v1.event_pb2 import Event, EventType

from service.errors import ShuttingDownError
from service.events import hub as hub_module
from service.events import log as log_module
from service.events.hub import QUEUE_EVENTS, LogLostError, Published, TooSlowError, Watcher
from tests.events.hubs import WAIT_S, everything, hub_in, numbers, publish, take


async def test_every_watcher_gets_every_event_in_order(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as one, Watcher(hub, wants=everything) as other:
            publish(hub, 500)
            assert numbers(await take(one, 500)) == list(range(1, 501))
            assert numbers(await take(other, 500)) == list(range(1, 501))
        assert hub.watchers == set()


async def test_event_is_on_disk_before_a_watcher_sees_it(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as watcher:
            publish(hub, 1)
            await take(watcher, 1)
            assert [sequence for sequence, _ in await hub.logged(after=0)] == [1]


async def test_event_that_comes_with_the_heartbeat_is_not_lost(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as watcher:
            waits = asyncio.ensure_future(watcher.next(sent=0, timeout_s=0))
            await asyncio.sleep(0)
            event = Published(1, Event(type=EventType.EVENT_TYPE_STARTED), b"")
            asyncio.get_running_loop().call_soon(watcher.offer, event)
            assert await waits is event


async def test_watcher_that_falls_behind_resumes_from_its_cursor_without_loss(
    tmp_path: Path,
) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as slow:
            publish(hub, QUEUE_EVENTS + 10)
            await hub.reached(hub.sequence)
            with pytest.raises(TooSlowError) as cut_off:
                await slow.next(sent=0, timeout_s=WAIT_S)
            cursor = cut_off.value.metadata
            assert cursor == {"epoch": hub.epoch, "sequence": "0"}
        with Watcher(hub, wants=everything) as back:
            replayed = [p async for p in back.replay(after=0, through=hub.delivered)]
            assert numbers(replayed) == list(range(1, QUEUE_EVENTS + 11))


async def test_slow_watcher_costs_the_others_nothing(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything), Watcher(hub, wants=everything) as quick:
            taken = []
            for _ in range(4):
                publish(hub, QUEUE_EVENTS // 2)
                taken += await take(quick, QUEUE_EVENTS // 2)
            assert numbers(taken) == list(range(1, 2 * QUEUE_EVENTS + 1))


async def test_events_that_expire_while_they_are_replayed_are_never_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "RETAINED_EVENTS", 50)
    monkeypatch.setattr(hub_module, "_REPLAY_EVENTS", 10)
    async with hub_in(tmp_path) as hub:
        publish(hub, 50)
        await hub.reached(50)
        with Watcher(hub, wants=everything) as watcher:
            replay = watcher.replay(after=0, through=50)
            first = [await anext(replay) for _ in range(10)]
            publish(hub, 45)
            await hub.reached(95)
            with pytest.raises(TooSlowError) as cut_off:
                await anext(replay)
            assert numbers(first) == list(range(1, 11))
            assert cut_off.value.metadata["sequence"] == "10"


async def test_cancelled_wait_for_a_number_does_not_stop_the_delivery(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as watcher:
            publish(hub, 1)
            waits = asyncio.ensure_future(hub.reached(1))
            await asyncio.sleep(0)
            waits.cancel()
            assert numbers(await take(watcher, 1)) == [1]


async def test_stop_delivers_what_is_pending_and_then_ends_with_the_cursor(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        with Watcher(hub, wants=everything) as watcher:
            publish(hub, 3)
            await hub.close()
            assert numbers(await take(watcher, 3)) == [1, 2, 3]
            with pytest.raises(ShuttingDownError) as stopped:
                await watcher.next(sent=3, timeout_s=WAIT_S)
            assert stopped.value.metadata == {"epoch": hub.epoch, "sequence": "3"}


async def test_event_after_the_end_of_the_streams_is_still_logged(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        await hub.close()
        publish(hub, 1)
    async with hub_in(tmp_path) as later:
        assert later.delivered == 1


async def test_full_log_begins_anew_and_everyone_is_told(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        first_epoch = hub.epoch
        with Watcher(hub, wants=everything) as watcher:
            publish(hub, 5)
            await take(watcher, 5)
            hub._log._connection.execute("PRAGMA max_page_count = 1")
            publish(hub, 400)
            with pytest.raises(LogLostError) as lost:
                await watcher.next(sent=5, timeout_s=WAIT_S)
            assert lost.value.metadata == {"epoch": first_epoch, "sequence": "5"}
        await hub.reached(hub.sequence)
        assert hub.epoch != first_epoch
        assert hub.delivered == 400
        with Watcher(hub, wants=everything) as back:
            replayed = [p async for p in back.replay(after=0, through=hub.delivered)]
            assert [p.event.detail for p in replayed] == [str(n) for n in range(400)]
            assert {p.event.cursor.epoch for p in replayed} == {hub.epoch}
            publish(hub, 1)
            assert numbers(await take(back, 1)) == [401]


async def test_log_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    async with hub_in(tmp_path) as hub:
        first_epoch = hub.epoch
        publish(hub, 5)
        await hub.reached(5)
        hub._log._connection.close()
        with Watcher(hub, wants=everything) as watcher:
            with pytest.raises(TooSlowError):
                await anext(watcher.replay(after=0, through=5))
            with pytest.raises(LogLostError):
                await watcher.next(sent=5, timeout_s=WAIT_S)
        assert hub.epoch != first_epoch
        with Watcher(hub, wants=everything) as back:
            publish(hub, 1)
            assert numbers(await take(back, 1)) == [1]


async def test_hub_goes_on_in_memory_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    async with hub_in(folder) as hub:
        (folder / "events.sqlite").unlink()
        (folder / "events.sqlite").mkdir()
        hub._log._connection.close()
        with Watcher(hub, wants=everything) as watcher:
            publish(hub, 2)
            with pytest.raises(LogLostError):
                await watcher.next(sent=0, timeout_s=WAIT_S)
        await hub.reached(hub.sequence)
        with Watcher(hub, wants=everything) as back:
            replayed = [p async for p in back.replay(after=0, through=hub.delivered)]
            assert numbers(replayed) == [1, 2]
