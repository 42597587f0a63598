"""The hub's promises on two things side by side, measured in turns: pair after pair, medians of the ratios.

python benchmarks/hub_pairs.py stalled [PAIRS]     one receiver of 1 000 never reads : all read; in one server process
python benchmarks/hub_pairs.py redis [PAIRS]       a process that only hears, on redis : memory; 100 receivers each
Needs the load generator that `run.py` builds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeAlias

from measure import Places, Result, free_port, load, measure, redis, server
from peers import PEERS
from workloads import WORKLOADS, Workload

HERE: Final = Path(__file__).parent
PLACES: Final = Places(bin=Path(sys.executable).parent, build=HERE.parent / ".cache" / "bench")
MEMORY: Final = PEERS["antiphon-hub"]
REDIS: Final = PEERS["antiphon-hub-redis"]

Pairs: TypeAlias = list[tuple[Result, Result]]


def stalled(pairs: int) -> None:
    calm, held = WORKLOADS["fanout-64"], WORKLOADS["fanout-stalled"]
    port = free_port()
    found: Pairs = []
    with server(MEMORY, calm, PLACES, port, None) as process:

        def one(workload: Workload) -> Result:
            return load(MEMORY, workload, PLACES, process.pid, port)

        one(calm)
        for number in range(pairs):
            # Each goes first as often as the other.
            first = one(held) if number % 2 else None
            base = one(calm)
            found.append((base, first or one(held)))
    _print("one stalled : none", found)


def hearing(pairs: int) -> None:
    for name in ("fanout-100-turns", "fanout-100"):
        workload = WORKLOADS[name]
        _print(workload.title, [(measure(MEMORY, workload, PLACES), _hear(workload)) for _ in range(pairs)])


def _hear(workload: Workload) -> Result:
    """The publisher's connection goes to a second process."""
    heard, spoken = free_port(), free_port()
    with (
        redis(REDIS) as url,
        server(REDIS, workload, PLACES, heard, url) as process,
        server(REDIS, workload, PLACES, spoken, url, cpu="1"),
    ):
        return load(REDIS, workload, PLACES, process.pid, heard, {"WSPUBPORT": str(spoken)})


def _print(title: str, pairs: Pairs) -> None:
    print(title)
    figures: dict[str, Callable[[Result], float]] = {
        "CPU": lambda result: result.value,
        "p50": lambda result: result.p50us,
        "p99": lambda result: result.p99us,
    }
    for name, figure in figures.items():
        low, middle, high = quantiles([figure(second) / figure(first) for first, second in pairs])
        medians = median(figure(second) for _, second in pairs) / median(figure(first) for first, _ in pairs)
        print(
            f"  {name}: median of {len(pairs)} ratios {middle:.2f} ({low:.2f} to {high:.2f}), of medians {medians:.2f}"
        )


if __name__ == "__main__":
    {"stalled": stalled, "redis": hearing}[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 10)
