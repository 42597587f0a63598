"""Own and foreign senders: order, bounds, and a bad peer that hurts nobody else. In memory; servers are next door."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from antiphon.connection import ConnectionOptions, WebSocket, WebSocketState
from antiphon.connection.foreign import UNHEEDED_PER_TURN
from antiphon.exceptions import NotAccepted, WebSocketDisconnect, WebSocketDisconnected
from antiphon.types import ClosedBy, Message, Overflow, PreparedMessage
from tests.connection.peer import Peer
from tests.patience import PATIENCE


def foreign(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run as code that has nothing to do with the connection: a task with an empty context."""
    return asyncio.create_task(work, context=contextvars.Context())


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run as such code does, and in this turn of the loop: work that does not suspend."""
    with pytest.raises(StopIteration):
        contextvars.Context().run(work.send, None)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def elsewhere(work: Coroutine[Any, Any, None]) -> threading.Thread:
    """Run in another thread with an event loop of its own."""
    thread = threading.Thread(target=asyncio.run, args=(work,), daemon=True)
    thread.start()
    return thread


class Small(WebSocket):
    options = ConnectionOptions(outbox_bytes=100, send_timeout=PATIENCE)


class Impatient(WebSocket):
    options = ConnectionOptions(send_timeout=0.05)


async def test_tasks_that_the_endpoint_starts_are_its_own() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.lost = True
    with pytest.raises(WebSocketDisconnect):
        await asyncio.create_task(websocket.send_text("x"))


async def test_a_second_websocket_of_the_same_connection_makes_no_stranger_of_the_first() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    WebSocket(dict(peer.scope), peer.receive, peer.send)
    peer.lost = True
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("x")


async def test_what_foreign_senders_send_arrives_in_order() -> None:
    peer = Peer()
    websocket = await peer.accepted()

    async def work() -> None:
        await websocket.send_text("1")
        await websocket.send_bytes(b"2")
        await websocket.send_json([3])
        await websocket.send({"type": "websocket.send", "text": "4"})

    await foreign(work())
    await turns()
    assert [message.get("text", message.get("bytes")) for message in peer.sent] == ["1", b"2", "[3]", "4"]


async def test_an_own_send_keeps_its_place_behind_foreign_messages() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    await foreign(websocket.send_text("foreign 1"))
    own = asyncio.create_task(websocket.send_text("own"))
    await turns()
    await foreign(websocket.send_text("foreign 2"))
    assert not own.done()
    peer.blocked = False
    await own
    await turns()
    assert peer.texts == ["foreign 1", "own", "foreign 2"]


async def test_a_foreign_message_keeps_its_place_behind_an_own_send_that_waits() -> None:
    class Unfair(Peer):
        """A server that lets the sender who came last go first."""

        async def send(self, message: Message) -> None:
            if self.blocked:
                waiting.append(asyncio.get_running_loop().create_future())
                await waiting[-1]
            self.sent.append(message)

    waiting: list[asyncio.Future[None]] = []
    peer = Unfair()
    websocket = await peer.accepted()
    peer.blocked = True
    own = asyncio.create_task(websocket.send_text("own"))
    await turns()
    await foreign(websocket.send_text("foreign"))
    await turns()
    peer.blocked = False
    while waiting:
        waiting.pop().set_result(None)
        await turns()
    await own
    assert peer.texts == ["own", "foreign"]


async def test_an_own_send_that_was_cancelled_in_line_is_not_sent() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    await foreign(websocket.send_text("foreign"))
    own = asyncio.create_task(websocket.send_text("own"))
    await turns()
    own.cancel()
    await turns()
    peer.blocked = False
    await turns()
    assert peer.texts == ["foreign"]
    await websocket.send_text("open")
    assert peer.texts == ["foreign", "open"]


async def test_a_foreign_message_that_an_own_send_began_to_write_outlives_its_cancellation() -> None:
    inside = contextvars.ContextVar[bool]("inside")

    class Traced(Peer):
        """A server that has taken a message when it waits, behind middleware with a context variable."""

        async def send(self, message: Message) -> None:
            token = inside.set(True)
            taken.append(message)
            await super().send(message)
            inside.reset(token)

    taken: list[Message] = []
    peer = Traced()
    websocket = await peer.accepted()
    peer.blocked = True
    at_once(websocket.send_text("foreign"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await websocket.send_text("own")
    peer.blocked = False
    await turns()
    assert peer.texts == ["foreign"]
    await websocket.send_text("open")
    assert peer.texts == ["foreign", "open"]
    assert taken[1:] == peer.sent


async def test_a_foreign_send_does_not_wait_for_a_peer_that_does_not_read() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    async with asyncio.timeout(PATIENCE):
        for _ in range(100):
            await foreign(websocket.send_text("x"))
    assert websocket.sink.buffered == 100


async def test_a_foreign_sender_never_hears_of_a_peer_that_is_gone() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.lost = True
    for _ in range(3):
        await foreign(websocket.send_text("x"))
        await turns()
    await foreign(websocket.close())
    assert websocket.closed is not None
    assert websocket.closed.code == 1006


async def test_a_sender_to_a_dead_connection_that_waits_by_itself_waits_for_nothing_else() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close()

    async def work() -> None:
        for _ in range(2 * UNHEEDED_PER_TURN):
            turns_meanwhile: list[bool] = []
            asyncio.get_running_loop().call_soon(turns_meanwhile.append, True)
            await websocket.send_text("x")
            assert not turns_meanwhile
            await asyncio.sleep(0)

    await foreign(work())


async def test_a_loop_that_sends_to_a_dead_connection_lets_others_run() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close()

    async def work() -> None:
        while True:
            await websocket.send_text("x")

    sender = foreign(work())
    async with asyncio.timeout(PATIENCE):
        await turns(10)
    sender.cancel()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ws: ws.send_text(b"x"), TypeError),
        (lambda ws: ws.send_bytes("x"), TypeError),
        (lambda ws: ws.send_json(object()), TypeError),
        (lambda ws: ws.send_text("\ud800"), UnicodeEncodeError),
        (lambda ws: ws.close(1005), ValueError),
        (lambda ws: ws.send({"type": "websocket.send"}), ValueError),
    ],
)
async def test_a_foreign_senders_own_mistakes_are_told(call: Any, error: type[Exception]) -> None:
    websocket = await Peer().accepted()
    with pytest.raises(error):
        await foreign(call(websocket))


async def test_a_foreign_sender_before_accept_is_told() -> None:
    websocket = Peer().websocket()
    for call in (websocket.send_text("x"), websocket.close(), websocket.send({"type": "websocket.send", "text": "x"})):
        with pytest.raises(NotAccepted):
            await foreign(call)


async def test_a_full_outbox_closes_with_1013_behind_what_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    peer = Peer()
    websocket = await peer.accepted(Small)
    peer.blocked = True
    for _ in range(3):
        await foreign(websocket.send_text("x" * 40))
    assert websocket.closed is not None
    assert (websocket.closed.code, websocket.closed.by) == (1013, ClosedBy.US)
    peer.blocked = False
    await turns()
    assert [message["type"] for message in peer.sent] == ["websocket.send"] * 2 + ["websocket.close"]
    assert peer.sent[-1]["code"] == 1013
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.send_text("own")
    assert caught.value.code == 1013


async def test_an_outbox_that_is_told_to_drops_and_counts_the_newest() -> None:
    peer = Peer()
    peer.scope["antiphon.connection_options"] = ConnectionOptions(outbox_bytes=100, overflow=Overflow.DROP_NEWEST)
    websocket = await peer.accepted()
    peer.blocked = True
    for number in range(5):
        await foreign(websocket.send_text(f"{number}" * 40))
    assert websocket.dropped == 3
    peer.blocked = False
    await turns()
    assert peer.texts == ["0" * 40, "1" * 40]


@pytest.mark.parametrize("overflow", [Overflow.CONFLATE, Overflow.DROP_OLDEST])
def test_policies_that_need_a_topic_are_refused(overflow: Overflow) -> None:
    with pytest.raises(ValueError, match=overflow.name):
        ConnectionOptions(overflow=overflow)


async def test_an_empty_outbox_takes_one_message_of_any_size() -> None:
    peer = Peer()
    websocket = await peer.accepted(Small)
    await foreign(websocket.send_text("x" * 1000))
    await turns()
    assert websocket.closed is None
    assert len(peer.texts[0]) == 1000


async def test_a_burst_to_a_peer_that_reads_is_not_mistaken_for_a_slow_one() -> None:
    peer = Peer()
    websocket = await peer.accepted(Small)

    async def burst() -> None:
        for number in range(1000):
            await websocket.send_text(f"{number:030}")

    await foreign(burst())
    await turns()
    assert peer.texts == [f"{number:030}" for number in range(1000)]


async def test_an_own_send_waits_no_longer_than_send_timeout() -> None:
    peer = Peer()
    websocket = await peer.accepted(Impatient)
    peer.blocked = True
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_text("x")
    assert caught.value.code == 1006
    assert websocket.closed is not None
    assert not websocket.is_connected


async def test_an_own_send_in_line_waits_no_longer_than_send_timeout() -> None:
    peer = Peer()
    websocket = await peer.accepted(Impatient)
    peer.blocked = True
    await foreign(websocket.send_text("foreign"))
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("own")
    peer.blocked = False
    await turns()
    assert peer.sent == []


async def test_a_foreign_close_waits_for_nobody_and_counts_at_once() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    await foreign(websocket.close(4000, "kicked"))
    await foreign(websocket.close(4001, "too late"))
    assert websocket.application_state is WebSocketState.DISCONNECTED
    assert websocket.closed is not None
    assert (websocket.closed.code, websocket.closed.reason) == (4000, "kicked")
    peer.blocked = False
    await turns()
    assert peer.sent == [{"type": "websocket.close", "code": 4000, "reason": "kicked"}]


async def test_an_endpoint_may_close_what_a_foreign_sender_has_closed_without_its_knowing() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await foreign(websocket.close(4000, "kicked"))
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("x")
    await websocket.close()
    await turns()
    assert peer.sent == [{"type": "websocket.close", "code": 4000, "reason": "kicked"}]


async def test_senders_in_other_threads_are_handed_over_in_order() -> None:
    peer = Peer()
    websocket = await peer.accepted()

    async def work() -> None:
        for number in range(100):
            await websocket.send_text(str(number))
        await websocket.close(4000)

    thread = elsewhere(work())
    async with asyncio.timeout(PATIENCE):
        assert (await websocket.wait_closed()).code == 4000
    await asyncio.to_thread(thread.join)
    await turns()
    assert peer.texts == [str(number) for number in range(100)]


async def test_a_loop_in_another_thread_that_sends_lets_others_there_run() -> None:
    websocket = await Peer().accepted()

    async def pour() -> None:
        while True:
            await websocket.send_text("x")

    async def work() -> None:
        pouring = asyncio.create_task(pour())
        await turns()
        pouring.cancel()

    thread = elsewhere(work())
    await asyncio.to_thread(thread.join, PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("text", ["x" * 50, "€" * 50])
async def test_a_flood_from_another_thread_is_bounded_before_it_arrives(text: str) -> None:
    peer = Peer()
    websocket = await peer.accepted(Small)

    async def flood() -> None:
        for _ in range(1000):
            await websocket.send_text(text)

    thread = elsewhere(flood())
    thread.join()  # on purpose: our loop stands still meanwhile
    assert websocket._foreign().handed_over == (100 if text.isascii() else 150)  # a first one is always taken
    await turns()
    assert websocket.closed is not None
    assert websocket.closed.code == 1013


def test_a_connection_whose_loop_is_closed_swallows_what_is_sent() -> None:
    async def connect() -> WebSocket:
        return await Peer().accepted()

    websocket = asyncio.run(connect())

    async def use() -> None:
        await websocket.send_text("x")
        await websocket.send_bytes(b"x")
        await websocket.close()
        assert (await websocket.wait_closed()).code == 1006

    asyncio.run(use())


# The Sink that the hub sees


async def test_an_offer_that_would_pass_the_limit_is_not_taken() -> None:
    peer = Peer()
    sink = (await peer.accepted()).sink
    peer.blocked = True
    assert sink.offer(PreparedMessage("é" * 30), 100)
    assert sink.buffered == 60
    assert not sink.offer(PreparedMessage(b"x" * 41), 100)
    assert sink.offer(PreparedMessage(b"x" * 40), 100)
    assert sink.buffered == 100


async def test_a_dead_sink_takes_and_drops_everything() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close()
    assert not websocket.sink.alive
    assert websocket.sink.offer(PreparedMessage("x"), 0)
    await turns()
    assert peer.texts == []


async def test_writable_is_told_once_when_half_is_gone() -> None:
    peer = Peer()
    sink = (await peer.accepted()).sink
    peer.blocked = True
    for _ in range(4):
        sink.offer(PreparedMessage("x"), 100)
    told: list[int] = []
    sink.on_writable(lambda: told.append(sink.buffered))
    await turns()
    assert told == []
    peer.blocked = False
    await turns()
    assert told == [2]


async def test_writable_is_told_when_the_connection_dies_instead() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.blocked = True
    sink = websocket.sink
    sink.offer(PreparedMessage("x"), 100)
    told = []
    sink.on_writable(lambda: told.append(1))
    sink.disconnect(1013, "")
    assert told == [1]


async def test_the_end_is_told_once_and_not_to_those_who_left() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    told: list[str] = []

    def unwanted() -> None:
        told.append("unwanted")

    websocket.sink.on_close(lambda: told.append("first"))
    websocket.sink.on_close(unwanted)
    websocket.sink.off_close(unwanted)
    websocket.sink.off_close(unwanted)
    peer.leave(1001)
    await turns()
    assert told == ["first"]
    websocket.sink.on_close(lambda: told.append("late"))
    assert told == ["first", "late"]


async def test_no_task_outlives_the_connections_own() -> None:
    peer = Peer()
    sockets: list[WebSocket] = []

    async def endpoint() -> None:
        websocket = await peer.accepted()
        sockets.append(websocket)
        websocket.is_connected
        peer.blocked = True
        await foreign(websocket.send_text("x"))
        await turns()

    before = asyncio.all_tasks()
    await asyncio.create_task(endpoint())
    await turns()
    assert asyncio.all_tasks() == before
    assert not sockets[0].sink.alive


async def test_the_writer_runs_in_the_connections_context_and_not_in_a_foreign_senders() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    seen = []

    class Curious(Peer):
        async def send(self, message: Message) -> None:
            seen.append(name.get())
            await super().send(message)

    async def work(websocket: WebSocket) -> None:
        name.set("somebody")
        await websocket.send_text("x")

    name.set("the connection")
    websocket = await Curious().accepted()
    await foreign(work(websocket))
    await turns()
    assert seen == ["the connection"] * 2


async def test_a_close_from_the_sink_is_a_close_of_the_application() -> None:
    websocket = await Peer().accepted()
    websocket.sink.disconnect(1013, "slow")
    assert websocket.application_state is WebSocketState.DISCONNECTED
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.receive_text()
    assert caught.value.code == 1013


async def test_nothing_is_read_behind_a_disconnect_message() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    receiving = asyncio.create_task(websocket.receive())
    await turns()
    websocket.is_connected
    peer.leave(1001)
    await receiving
    await turns()
    assert peer.receives == 2  # the connect message and the disconnect message


async def test_who_asks_for_the_end_before_accept_disturbs_nothing_and_hears_of_it() -> None:
    peer = Peer()
    websocket = peer.websocket()
    ending = asyncio.create_task(websocket.wait_closed())
    await turns()
    await websocket.accept()
    peer.come("x")
    assert await websocket.receive_text() == "x"
    peer.leave(1001)
    assert (await ending).code == 1001
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()


class Busy(WebSocket):
    options = ConnectionOptions(outbox_bytes=1000)


@pytest.mark.parametrize("trouble", ["gone", "closed", "slow"])
async def test_a_loop_over_connections_does_not_wait_at_a_bad_one(trouble: str) -> None:
    """Where it waits, endpoints leave, and a loop over the list skips, a loop over a set raises."""
    peer = Peer()
    websocket = await peer.accepted(Busy)
    peer.blocked = True
    if trouble == "gone":
        peer.leave(1006)
        await websocket.receive()
    else:
        await foreign(websocket.send_bytes(bytes(800)) if trouble == "slow" else websocket.close())

    async def broadcast() -> None:
        asyncio.get_running_loop().call_soon(others.clear)
        for other in others:
            await other.send_text("x")
        for other in others:
            await other.close()
        assert others

    others = {websocket}
    await foreign(broadcast())
    assert not others


async def test_many_broadcasts_in_one_turn_do_not_add_up_to_a_wait_at_a_dead_connection() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close()
    others = {websocket}

    async def broadcast() -> None:
        for other in others:
            await other.send_text("x")

    def leave() -> None:
        others.clear()

    broadcasts = [foreign(broadcast()) for _ in range(100)]
    asyncio.get_running_loop().call_soon(leave)
    await asyncio.gather(*broadcasts)


async def test_a_loop_that_only_sends_to_the_dead_gives_the_loop_its_turns() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1006)
    await websocket.receive()

    async def hog() -> None:
        while not over:
            await websocket.send_text("x")

    over: list[bool] = []
    task = foreign(hog())
    await turns()
    over.append(True)
    await task


@pytest.mark.parametrize("size", [30, 60])
async def test_a_peer_that_reads_is_not_taken_for_a_slow_one_because_many_send_at_once(size: int) -> None:
    peer = Peer()
    websocket = await peer.accepted(Small)
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(websocket.send_text(f"{number:0{size}}"), context=contextvars.Context())
    await turns()
    assert websocket.closed is None
    assert sorted(map(int, peer.texts)) == list(range(10))


async def test_a_large_message_behind_a_small_one_is_no_reason_to_take_a_peer_for_slow() -> None:
    peer = Peer()
    websocket = await peer.accepted(Small)

    async def work() -> None:
        await websocket.send_text("x" * 10)
        await websocket.send_text("x" * 95)

    await foreign(work())
    await turns()
    assert [len(text) for text in peer.texts] == [10, 95]
