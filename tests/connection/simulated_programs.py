"""The parts of endpoints, for `simulation`: the loops, tasks and timeouts that users write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from antiphon.exceptions import PeerError, WebSocketDisconnect
from tests.connection.simulated_life import Body, Life

TOPIC: Final = "room"


async def _echo(life: Life) -> None:
    while True:
        await life.hear()
        await life.say(life, f"{life.number}.echo")
        if life.rng.random() < 0.3:
            await life.pause()


async def _chat(life: Life) -> None:
    try:
        while True:
            await life.hear()
            for target in list(life.world.room):
                await life.say(target, f"{life.number}.chat")
    except WebSocketDisconnect:
        life.world.room.remove(life)
        for target in life.world.room:
            await life.say(target, f"{life.number}.bye")


async def _listen(life: Life) -> None:
    while True:
        await life.hear()


async def _iterate(life: Life) -> None:
    iterate: list[Callable[[], AsyncIterator[str | bytes]]] = [life.websocket.iter_text, life.websocket.iter_bytes]
    try:
        async for data in life.rng.choice(iterate)():
            life.take(data)
            await life.pause()
        life.heard_end = True
    except PeerError:
        life.take(None)
        raise


async def _hear_some(life: Life) -> None:
    for _ in range(life.rng.randrange(4)):
        await life.hear()


async def _push(life: Life) -> None:
    while True:
        await life.say(life, f"{life.number}.push")
        await life.pause()


async def _push_without_a_pause(life: Life) -> None:
    for _ in range(200):
        await life.say(life, f"{life.number}.flood")


async def _gather(life: Life) -> None:
    await asyncio.gather(_listen(life), _push(life))


async def _group(life: Life) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_listen(life))
        group.create_task(_push(life))


async def _first(life: Life) -> None:
    tasks = [life.start(_listen(life)), life.start(_push(life))]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


async def _beside(life: Life) -> None:
    pushing = life.start(_push(life))
    try:
        await _hear_some(life)
    finally:
        if life.rng.random() < 0.5:
            pushing.cancel()


async def _impatient(life: Life) -> None:
    while True:
        try:
            async with asyncio.timeout(life.rng.choice([0, 0.001, 0.03])):
                await life.hear()
        except TimeoutError:
            await life.say(life, f"{life.number}.tick")
            await life.pause()


async def _impatient_sender(life: Life) -> None:
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(life.rng.choice([0.001, 0.1])):
                await life.say(life, f"{life.number}.quick")
                await life.pause()


async def _impatient_closer(life: Life) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(life.rng.choice([0.05, 0.3])):
            await _push(life)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(life.rng.choice([0, 0.1])):
            await life.close(life, 4003, "enough")


async def _wait(life: Life) -> None:
    await life.wait_closed(life)


async def _poll(life: Life) -> None:
    while life.websocket.is_connected:  # noqa: ASYNC110 - as users write it
        await asyncio.sleep(0.01)
    life.note(f"polled: {life.websocket.closed}")
    if life.websocket.closed is None and life.websocket.application_state.name == "CONNECTED":
        life.fault("not connected and not closed")


async def _sleep(life: Life) -> None:
    await asyncio.sleep(life.rng.choice([0.1, 1, 60]))


async def _join(life: Life) -> None:
    async with life.world.app.hub.join(TOPIC, life.websocket):
        await life.rng.choice([_listen, _listen, _impatient_closer])(life)


async def _kick(life: Life) -> None:
    await life.hear()
    target = life.rng.choice(life.world.room)
    await life.close(target, 4004, "kicked")
    await _listen(life)


async def _stubborn(life: Life) -> None:
    for _ in range(30):
        try:
            if life.rng.random() < 0.5:
                await life.hear()
            else:
                await life.say(life, f"{life.number}.stubborn")
        except Exception:
            await life.pause()


async def _two_readers(life: Life) -> None:
    await asyncio.gather(_listen(life), _listen(life))


async def _forgetful(life: Life) -> None:
    life.start(_listen(life))
    life.start(_push(life))
    await _sleep(life)


BODIES: Final[tuple[Body, ...]] = (
    _echo,
    _chat,
    _chat,
    _listen,
    _iterate,
    _hear_some,
    _push,
    _push_without_a_pause,
    _gather,
    _group,
    _first,
    _beside,
    _impatient,
    _impatient_sender,
    _impatient_closer,
    _wait,
    _poll,
    _sleep,
    _join,
    _kick,
    _stubborn,
    _two_readers,
    _forgetful,
)
