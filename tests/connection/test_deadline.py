"""A bound on waiting that changes nothing else about the awaitable."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.connection.deadline import within


async def test_work_that_does_not_suspend_sets_no_timer() -> None:
    async def work() -> None:
        pass

    loop = asyncio.get_running_loop()
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    await within(work(), 60)
    assert len(loop._scheduled) == before  # type: ignore[attr-defined]


async def test_work_that_suspends_often_is_carried_through() -> None:
    seen: list[int] = []

    async def work() -> None:
        for number in range(3):
            await asyncio.sleep(0)
            seen.append(number)
        await asyncio.get_running_loop().run_in_executor(None, seen.append, 3)

    await within(work(), 5)
    assert seen == [0, 1, 2, 3]


async def test_its_error_comes_out() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await within(work(), 5)


async def test_work_that_takes_too_long_is_cancelled_and_may_clean_up() -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned = True

    with pytest.raises(TimeoutError):
        await within(work(), 0.01)
    assert cleaned


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(within(work(), 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_handles_an_error_thrown_at_it_goes_on() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    task = asyncio.create_task(within(work(), 60))
    await asyncio.sleep(0)
    task.cancel()
    await task
