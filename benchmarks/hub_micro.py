"""The cost of the hub without a socket: joining and leaving, and handing one message to one more receiver.

python benchmarks/hub_micro.py [URL]        memory:// by default; relay:// and redis://… work too
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from antiphon import Hub, TopicOptions
from antiphon.testing.hub_sinks import Connection
from antiphon.types import PreparedMessage

ROUNDS = 7
TOPICS = 100_000


class Tin(Connection):
    """A receiver that takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sink.offer = _take  # type: ignore[method-assign]


def _take(message: PreparedMessage, limit: int) -> bool:
    return True


async def main(url: str) -> None:
    topics = {"kept": TopicOptions(history=100), "people": TopicOptions(presence=True)}
    async with Hub(url, topics=topics) as hub:
        print(f"{hub.url}: µs of CPU time, the median of {ROUNDS}")
        connection = Tin()

        async def come_and_go(topic: str) -> None:
            async with hub.join(topic, connection):
                pass

        count = 20_000 if url == "memory://" else 2_000
        await _measure("join and leave a topic of one's own", count, lambda: come_and_go("t"))
        async with hub.join("busy", Tin()):
            await _measure("join and leave a topic others are in", count, lambda: come_and_go("busy"))
        await _measure("publish to nobody", count, lambda: hub.publish("t", "x" * 64))
        for topic in ("many", "kept"):
            receivers = [hub.join(topic, Tin()) for _ in range(1000)]
            for receiver in receivers:
                await receiver.__aenter__()

            async def publish(topic: str = topic) -> None:
                await hub.publish(topic, "x" * 64)

            await _measure(f"publish to 1 000 receivers, per receiver ({topic})", count // 100, publish, 1000)
            for receiver in receivers:
                await receiver.leave()
        before = _memory()
        for number in range(TOPICS if url == "memory://" else TOPICS // 10):
            await come_and_go(f"room:{number}")
        gc.collect()
        print(f"{'memory left by topics that were opened and left, KB':55} {_memory() - before:9.0f}")


async def _measure(title: str, count: int, work: Callable[[], Awaitable[object]], parts: int = 1) -> None:
    figures = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(count):
            await work()
        figures.append((time.process_time() - start) * 1e6 / count / parts)
    print(f"{title:55} {statistics.median(figures):9.2f}")


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory://"))
