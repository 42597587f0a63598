"""One wheel for the expiries of an event loop, with clocks of the test's own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from antiphon.connection.expiry import ENDS_PER_TURN, STEP, TICK, Expiries, Expiry, ExpiryClock, expiries_of
from antiphon.testing import VirtualTimeLoop

UNIX = 1_700_000_000.0


class Clocks:
    """The loop's clock and the wall's, which tests set apart."""

    def __init__(self) -> None:
        self.skew = 0.0

    def wall(self) -> float:
        return UNIX + asyncio.get_running_loop().time() + self.skew


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def made(clocks: Clocks) -> tuple[Expiries, Callable[[float], tuple[Expiry, list[float]]]]:
    """Expiries, and how to make one at a Unix time: with it the virtual times at which it ended."""
    loop = asyncio.get_running_loop()
    expiries = Expiries(loop, clocks.wall)

    def expiring(at: float) -> tuple[Expiry, list[float]]:
        ended: list[float] = []
        expiry = Expiry(loop, lambda: ended.append(loop.time()), expiries)
        expiry.expire_at(at)
        return expiry, ended

    return expiries, expiring


def test_ten_thousand_at_random_times_end_within_a_second_each() -> None:
    async def main() -> None:
        expiries, expiring = made(Clocks())
        rng = random.Random(11)
        all_of_them = []
        for _ in range(10_000):
            after = rng.choice([rng.uniform(0, 5), rng.uniform(0, 300), rng.uniform(0, 7_200)])
            all_of_them.append((after, expiring(UNIX + after)[1]))
        await asyncio.sleep(7_202)
        for after, ended in all_of_them:
            assert len(ended) == 1
            assert 0 <= ended[0] - after <= 1
        assert len(expiries.deadlines) == 0

    in_virtual_time(main)


def test_thousands_that_end_at_once_leave_the_loop_its_turns() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiries, _ = made(Clocks())
        ended: list[float] = []
        counts: list[int] = []

        def count() -> None:
            """Once in each turn of the loop."""
            counts.append(len(ended))
            if counts[-1] < 5000:
                loop.call_soon(count)

        def end() -> None:
            if not ended:
                loop.call_soon(count)
            ended.append(loop.time())

        for _ in range(5000):
            Expiry(loop, end, expiries).expire_at(UNIX + 10)
        await asyncio.sleep(20)
        assert len(ended) == 5000
        assert max(ended) <= 11
        assert max(after - before for before, after in itertools.pairwise([0, *counts])) <= ENDS_PER_TURN

    in_virtual_time(main)


def test_one_that_is_renewed_while_it_waits_for_its_turn_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiries, expiring = made(Clocks())
        waiting, ended = expiring(UNIX + 10)

        def fail_and_renew() -> None:
            waiting.expire_at(UNIX + 20)
            raise LookupError("a fault of ours")

        first = Expiry(loop, fail_and_renew, expiries)
        first.due = waiting.due
        expiries.end_soon(first)
        expiries.end_soon(waiting)
        waiting.due = first.due = 0.0
        await asyncio.sleep(0)
        assert ended == []
        await asyncio.sleep(30)
        assert [round(time) for time in ended] == [20]

    in_virtual_time(main)
    assert [record.message for record in caplog.records] == ["a connection that has expired could not be ended"]


def test_ten_thousand_that_are_renewed_end_at_their_last_date_alone() -> None:
    async def main() -> None:
        expiries, expiring = made(Clocks())
        rng = random.Random(12)
        last: dict[Expiry, tuple[float, list[float]]] = {}
        for _ in range(10_000):
            after = rng.uniform(60, 600)
            expiry, ended = expiring(UNIX + after)
            last[expiry] = after, ended
        await asyncio.sleep(30)
        for expiry, (_, ended) in last.items():
            after = rng.uniform(31, 1200)  # earlier as well as later
            expiry.expire_at(UNIX + after)
            last[expiry] = after, ended
        await asyncio.sleep(1200)
        for after, ended in last.values():
            assert len(ended) == 1
            assert 0 <= ended[0] - after <= 1
        assert len(expiries.deadlines) == 0

    in_virtual_time(main)


def test_a_wall_clock_that_jumps_ahead_takes_the_time_that_it_skips() -> None:
    async def main() -> None:
        clocks = Clocks()
        _, expiring = made(clocks)
        _, soon = expiring(UNIX + 1000)
        _, later = expiring(UNIX + 5000)
        await asyncio.sleep(10)
        clocks.skew = 3600  # the machine was asleep for an hour
        await asyncio.sleep(1)
        assert len(soon) == 1
        assert soon[0] - 10 <= 1
        await asyncio.sleep(5000)
        assert len(later) == 1
        assert 1390 <= later[0] + 0.0 <= 1401

    in_virtual_time(main)


def test_a_wall_clock_that_is_set_back_gives_no_more_time_and_takes_none_from_who_comes_then() -> None:
    async def main() -> None:
        clocks = Clocks()
        _, expiring = made(clocks)
        _, before = expiring(UNIX + 100)
        await asyncio.sleep(10)
        clocks.skew = -3600
        _, after = expiring(clocks.wall() + 100)
        await asyncio.sleep(200)
        assert [round(time) for time in (*before, *after)] == [100, 110]

    in_virtual_time(main)


def test_a_clock_that_is_wrong_for_a_while_hurts_nobody_who_comes_later() -> None:
    async def main() -> None:
        clocks = Clocks()
        _, expiring = made(clocks)
        await asyncio.sleep(1)
        clocks.skew = 3600
        expiring(clocks.wall() + 1)
        await asyncio.sleep(5)
        clocks.skew = 0
        _, ended = expiring(clocks.wall() + 60)
        await asyncio.sleep(100)
        assert [round(time) for time in ended] == [66]

    in_virtual_time(main)


def test_small_corrections_of_the_wall_clock_do_not_add_up() -> None:
    async def main() -> None:
        clocks = Clocks()
        clock = ExpiryClock(asyncio.get_running_loop().time, clocks.wall)
        rng = random.Random(13)
        for _ in range(100_000):
            clocks.skew = rng.uniform(-0.1, 0.1)
            clock()
        assert clock() == 0

    in_virtual_time(main)


def test_in_virtual_time_a_machine_that_stalls_takes_nothing() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[float] = []
        expiry = Expiry(loop, lambda: None)
        expiry.expire_at(time.time() + 60)
        time.sleep(6 * STEP)  # noqa: ASYNC251  the machine does something else
        expiry.tell_ahead(20, lambda left: told.append(loop.time()))
        await asyncio.sleep(60)
        assert told == [pytest.approx(40, abs=2 * TICK)]
        expiry.leave()

    in_virtual_time(main)


@pytest.mark.parametrize("at", [1e13, 10**400, float("inf")])
def test_a_date_beyond_all_dates_is_none(at: float) -> None:
    async def main() -> None:
        expiries, expiring = made(Clocks())
        expiring(at)
        assert len(expiries.deadlines) == 0

    in_virtual_time(main)


@pytest.mark.parametrize("at", [0, -1e13, -(10**400), float("-inf")])
def test_a_date_that_has_passed_ends_it_at_once(at: float) -> None:
    async def main() -> None:
        _, expiring = made(Clocks())
        _, ended = expiring(at)
        await asyncio.sleep(1)
        assert len(ended) == 1

    in_virtual_time(main)


def test_what_is_told_ahead_comes_once_and_never_in_the_first_half_of_a_life() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        _, expiring = made(Clocks())
        told: list[tuple[float, float]] = []
        for after in (1000, 80):
            start = loop.time()
            expiry, ended = expiring(UNIX + start + after)
            expiry.tell_ahead(60, lambda left, start=start: told.append((loop.time() - start, left)))  # type: ignore[misc]
            await asyncio.sleep(after + 1)
            assert len(ended) == 1
        (at, left), (other, rest) = told
        assert 940 <= at <= 941
        assert 59 <= left <= 60
        assert 40 <= other <= 41
        assert 39 <= rest <= 40

    in_virtual_time(main)


def test_what_is_told_far_ahead_is_told_once_although_the_wheel_comes_round_before_the_end() -> None:
    async def main() -> None:
        _, expiring = made(Clocks())
        told: list[float] = []
        expiry, ended = expiring(UNIX + 1000)
        expiry.tell_ahead(450, told.append)
        await asyncio.sleep(1001)
        assert len(ended) == len(told) == 1

    in_virtual_time(main)


def test_a_renewal_is_told_ahead_anew_and_without_one_nothing_is() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        _, expiring = made(Clocks())
        told: list[int] = []
        expiry, ended = expiring(UNIX + 100)
        expiry.tell_ahead(10, lambda left: told.append(round(loop.time())))
        await asyncio.sleep(95)
        expiry.expire_at(UNIX + 200)
        await asyncio.sleep(100)
        expiry.expire_at(None)
        await asyncio.sleep(100)
        assert told == [90, 190]
        assert ended == []
        expiry.expire_at(UNIX + 400)
        expiry.tell_ahead(None, None)
        await asyncio.sleep(110)
        assert told == [90, 190]
        assert len(ended) == 1

    in_virtual_time(main)


def test_what_is_over_is_forgotten_and_cannot_be_armed_again() -> None:
    async def main() -> None:
        expiries, expiring = made(Clocks())
        expiry, ended = expiring(UNIX + 10)
        expiry.leave()
        expiry.leave()
        assert len(expiries.deadlines) == 0
        expiry.expire_at(UNIX + 20)
        await asyncio.sleep(30)
        assert ended == []

    in_virtual_time(main)


def test_an_expiry_is_moved_from_another_thread() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        expiry = Expiry(loop, lambda: ended.set_result(threading.get_ident()))
        thread = threading.Thread(target=expiry.expire_at, args=(0,))
        thread.start()
        thread.join()
        assert await ended == threading.get_ident()

    asyncio.run(main())


def test_two_loops_have_expiries_of_their_own_which_end_with_them() -> None:
    async def main() -> weakref.ref[Expiries]:
        loop = asyncio.get_running_loop()
        expiry = Expiry(loop, lambda: None)
        expiry.expire_at(2e9)
        assert len(expiries_of(loop).deadlines) == 1
        expiry.leave()  # as the end of its connection does
        return weakref.ref(expiries_of(loop))

    first = asyncio.run(main())
    second = asyncio.run(main())
    gc.collect()
    assert first() is None
    assert second() is None


def test_loops_that_were_closed_in_the_middle_are_forgotten_by_the_next() -> None:
    async def main() -> Expiries:
        loop = asyncio.get_running_loop()

        class Held:
            loop = asyncio.get_running_loop()

            def end(self) -> None:
                """Holds the loop, as connections do."""

        Expiry(loop, Held().end).expire_at(2e9)
        return expiries_of(loop)

    first = weakref.ref(asyncio.run(main()))
    asyncio.run(main())
    gc.collect()
    assert first() is None
