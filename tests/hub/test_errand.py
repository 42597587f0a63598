"""One call in place of many that ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from antiphon.hub.errand import Errand
from antiphon.hub.errors import BackendUnavailable
from antiphon.testing import virtual_time
from antiphon.testing.hub_sinks import eventually


class Asked:
    """A call that ends when the test says so."""

    def __init__(self) -> None:
        self.errand: Errand[int] = Errand()
        self.begun: list[asyncio.Future[int]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def call(self) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.begun.append(answer)
        return await answer

    def spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def run() -> None:
            await work()

        self.tasks.append(asyncio.create_task(run()))
        return self.tasks[-1]

    def ask(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.errand.answer(self.spawn, self.call))

    async def busy(self) -> asyncio.Task[int]:
        """One has asked alone. The answer to `begun[0]` is its answer."""
        task = self.ask()
        await turn()
        assert not self.tasks
        return task


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_while_a_call_is_under_way_shares_the_next_one() -> None:
    asked = Asked()
    alone = await asked.busy()
    early = [asked.ask() for _ in range(3)]
    await turn()
    assert len(asked.begun) == 1
    asked.begun[0].set_result(1)
    await turn()
    assert alone.result() == 1
    late = [asked.ask() for _ in range(3)]
    await turn()
    assert len(asked.begun) == 2
    asked.begun[1].set_result(2)
    assert await asyncio.gather(*early) == [2, 2, 2]
    await turn()
    asked.begun[2].set_result(3)
    assert await asyncio.gather(*late) == [3, 3, 3]
    await turn()
    assert asked.tasks[0].done()
    again = asked.ask()
    await turn()
    asked.begun[3].set_result(4)
    assert await again == 4
    assert len(asked.tasks) == 1, "alone again"


async def test_who_asks_in_the_very_moment_in_which_a_call_is_over_is_answered() -> None:
    """Whether its question comes before the task has ended, before that is known, or behind it."""
    asked = Asked()
    alone = await asked.busy()
    first = asked.ask()
    await turn()
    asked.begun[0].set_result(0)
    await turn()
    others: list[asyncio.Task[int]] = []
    asked.begun[1].set_result(1)
    for _ in range(6):
        others.append(asked.ask())
        await asyncio.sleep(0)
    while not all(task.done() for task in others):
        for answer in asked.begun:
            if not answer.done():
                answer.set_result(2)
        await asyncio.sleep(0)
    assert (await alone, await first) == (0, 1)
    assert await asyncio.gather(*others) == [2] * 6


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    asked = Asked()
    alone = await asked.busy()
    tasks = [asked.ask() for _ in range(3)]
    await turn()
    alone.cancel()
    await turn()
    assert len(asked.begun) == 2, "the next call begins at once"
    tasks[0].cancel()
    await turn()
    asked.begun[1].set_result(1)
    assert await asyncio.gather(*tasks[1:]) == [1, 1]


async def test_a_call_that_fails_has_failed_for_those_who_waited_for_it_alone() -> None:
    asked = Asked()
    alone = await asked.busy()
    early = [asked.ask() for _ in range(2)]
    await turn()
    asked.begun[0].set_exception(BackendUnavailable("away for one"))
    await turn()
    assert str(alone.exception()) == "away for one"
    late = asked.ask()
    await turn()
    asked.begun[1].set_exception(BackendUnavailable("away", uncertain=True))
    await turn()
    errors = [task.exception() for task in early]
    assert [str(error) for error in errors] == ["away", "away"]
    assert errors[0] is not errors[1]
    assert isinstance(errors[0], BackendUnavailable)
    assert errors[0].uncertain
    asked.begun[2].set_result(2)
    assert await late == 2


@pytest.mark.parametrize("turns", [0, 5], ids=["before it began", "under way"])
async def test_nobody_waits_for_a_call_that_was_cancelled(turns: int) -> None:
    asked = Asked()
    alone = await asked.busy()
    early = asked.ask()
    await turn()
    asked.begun[0].set_result(1)
    for _ in range(3):
        if not asked.tasks:
            await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    late = asked.ask()
    await asyncio.sleep(0)
    asked.tasks[0].cancel()
    for one in (early, late):
        with pytest.raises(BackendUnavailable, match="stopped"):
            await one
    assert await alone == 1
    fresh = asked.ask()
    await turn()
    asked.begun[-1].set_result(7)
    assert await fresh == 7


@virtual_time
async def test_who_asks_during_the_pause_is_in_time() -> None:
    asked, pauses = Asked(), [0.001, 0.02]

    def ask() -> asyncio.Task[int]:
        return asyncio.create_task(asked.errand.answer(asked.spawn, asked.call, lambda: pauses.pop() if pauses else 0))

    tasks = [ask()]
    await turn()
    tasks.append(ask())
    await turn()
    assert not asked.begun
    await eventually(lambda: asked.begun)
    asked.begun[0].set_result(1)
    assert await asyncio.gather(*tasks) == [1, 1]
    assert len(asked.begun) == 1
