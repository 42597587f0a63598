"""The workloads: one row each, with the load generator's arguments and the abilities that a peer needs."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from peers import Feature

DEFLATE = "permessage-deflate; client_max_window_bits"


class Figure(enum.Enum):
    CPU_PER_MESSAGE = "server CPU time per message, µs"
    CPU_PER_DELIVERY = "server CPU time per delivered message, µs"
    CPU_PER_CONNECTION = "server CPU time per connection, µs"
    MEMORY_PER_CONNECTION = "memory per connection, KB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    title: str
    mode: str
    path: str
    args: tuple[int, ...]
    figure: Figure
    needs: Feature
    deflate: bool = False
    json: bool = False
    stall: bool = False
    publishers: int = 1

    @property
    def env(self) -> dict[str, str]:
        chosen = {"WSEXT": DEFLATE} if self.deflate else {}
        if self.json:
            chosen["WSJSON"] = "1"
        if self.stall:
            chosen["WSSTALL"] = "1"
        if self.publishers > 1:
            chosen["WSPUB"] = str(self.publishers)
        return chosen


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="echo-32",
            title="Echo, 32 B, 50 connections, one message in flight each",
            mode="echo",
            path="/echo",
            args=(50, 32, 4),
            figure=Figure.CPU_PER_MESSAGE,
            needs=Feature.ECHO,
        ),
        Workload(
            name="echo-64k",
            title="Echo, 64 KiB, 20 connections",
            mode="echo",
            path="/echo",
            args=(20, 65536, 4),
            figure=Figure.CPU_PER_MESSAGE,
            needs=Feature.ECHO | Feature.LARGE,
        ),
        Workload(
            name="echo-json-deflate",
            title="Echo, 1 KiB JSON, compression negotiated",
            mode="echo",
            path="/echo",
            args=(50, 1024, 4),
            figure=Figure.CPU_PER_MESSAGE,
            needs=Feature.ECHO | Feature.DEFLATE,
            deflate=True,
            json=True,
        ),
        Workload(
            name="echo-typed",
            title="Echo of a typed message, 100 B of JSON, 50 connections, one in flight each",
            mode="echo",
            path="/typed",
            args=(50, 100, 4),
            figure=Figure.CPU_PER_MESSAGE,
            needs=Feature.TYPED,
        ),
        Workload(
            name="connect",
            title="Connect, one echo, close",
            mode="connect",
            path="/echo",
            args=(50, 5000),
            figure=Figure.CPU_PER_CONNECTION,
            needs=Feature.ECHO | Feature.CLOSE,
        ),
        Workload(
            name="idle",
            title="Idle connections",
            mode="idle",
            path="/echo",
            args=(5000, 2),
            figure=Figure.MEMORY_PER_CONNECTION,
            needs=Feature.ECHO,
        ),
        Workload(
            name="idle-deflate",
            title="Idle connections, compression negotiated",
            mode="idle",
            path="/echo",
            args=(5000, 2),
            figure=Figure.MEMORY_PER_CONNECTION,
            needs=Feature.ECHO | Feature.DEFLATE,
            deflate=True,
        ),
        Workload(
            name="fanout-64",
            title="One publishes 64 B to 1 000 receivers, 8 in flight",
            mode="fanout",
            path="/chat",
            args=(1000, 64, 1000, 8),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
        ),
        Workload(
            name="fanout-64-by-many",
            title="Eight publish 64 B to 1 000 receivers, one in flight each",
            mode="fanout",
            path="/chat",
            args=(1000, 64, 1000, 8),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
            publishers=8,
        ),
        Workload(
            name="fanout-json-deflate",
            title="One publishes 1 KiB JSON to 1 000 receivers, compression negotiated, 8 in flight",
            mode="fanout",
            path="/chat",
            args=(1000, 1024, 300, 8),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT | Feature.DEFLATE,
            deflate=True,
            json=True,
        ),
        Workload(
            name="fanout-stalled",
            title="One publishes 64 B to 1 000 receivers, of which one never reads",
            mode="fanout",
            path="/chat",
            args=(1000, 64, 1000, 8),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
            stall=True,
        ),
        Workload(
            name="fanout-100",
            title="One publishes 64 B to 100 receivers, 8 in flight",
            mode="fanout",
            path="/chat",
            args=(100, 64, 5000, 8),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
        ),
        Workload(
            name="fanout-100-turns",
            title="One publishes 64 B to 100 receivers, one in flight",
            mode="fanout",
            path="/chat",
            args=(100, 64, 5000, 1),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
        ),
        Workload(
            name="fanout-turns",
            title="One publishes 64 B to 1 000 receivers, one in flight",
            mode="fanout",
            path="/chat",
            args=(1000, 64, 1000, 1),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
        ),
        Workload(
            name="fanout-10000-turns",
            title="One publishes 64 B to 10 000 receivers, one in flight",
            mode="fanout",
            path="/chat",
            args=(10_000, 64, 60, 1),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.CHAT,
        ),
        Workload(
            name="rooms",
            title="10 000 receivers in 1 000 rooms, one message to each room",
            mode="rooms",
            path="/rooms",
            args=(10_000, 64, 1_000, 20),
            figure=Figure.CPU_PER_DELIVERY,
            needs=Feature.ROOMS,
        ),
    )
}
