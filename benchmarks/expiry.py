"""The cost of expiry: 100 000 armed connections, in one event loop, and nothing else to do.

python benchmarks/expiry.py [COUNT] [SECONDS]
"""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import sys
import time

from antiphon.connection.expiry import Expiry, expiries_of

HOUR = 3600


async def main(count: int, seconds: float) -> None:
    gc.disable()
    loop = asyncio.get_running_loop()
    ended: list[float] = []
    expiries = []
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    now = time.time()
    for _ in range(count):
        expiry = Expiry(loop, lambda: ended.append(loop.time()))
        expiry.expire_at(now + HOUR + random.random() * HOUR)
        expiry.tell_ahead(60, lambda left: None)
        expiries.append(expiry)
    took = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    print(f"to arm one: {took / count * 1e6:.2f} µs, {memory / count * 1024:.0f} bytes")

    began = time.process_time()
    await asyncio.sleep(seconds)
    spent = (time.process_time() - began) / seconds
    print(f"{count} pending: {spent * 1000:.2f} ms of CPU time a second ({spent:.3%})")
    quiet = await idle(seconds)
    print(f"of which the event loop itself: {quiet * 1000:.2f} ms")

    began = time.process_time()
    for expiry in expiries:
        expiry.expire_at(now + 2 * HOUR)
    print(f"to renew one: {(time.process_time() - began) / count * 1e6:.2f} µs")

    began = time.process_time()
    for expiry in expiries:
        expiry.leave()
    print(f"to forget one: {(time.process_time() - began) / count * 1e6:.2f} µs")
    assert not ended
    assert len(expiries_of(loop).deadlines) == 0


async def idle(seconds: float) -> float:
    """The same wait in a loop with nothing to do."""

    def run() -> float:
        began = time.thread_time()
        asyncio.run(asyncio.sleep(seconds))
        return (time.thread_time() - began) / seconds

    return await asyncio.to_thread(run)


if __name__ == "__main__":
    count, seconds = (*map(float, sys.argv[1:]), *(100_000, 20)[len(sys.argv) - 1 :])
    asyncio.run(main(int(count), seconds))
