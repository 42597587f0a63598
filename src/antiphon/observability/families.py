"""The metrics: each family's name, kind and labels, and the rule by which the numbers of several processes become
one."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .ledger import Ledger

LATENCIES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds. A healthy backend is in the first half, `call_timeout` is the last."""

DURATIONS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds a connection lasts."""


class FamilyKind(Enum):
    """How a family's numbers go together."""

    COUNTER = "counter"
    """Summed, those of processes that ended too."""
    GAUGE = "gauge"
    """Summed over the processes that live."""
    LOWEST = "lowest"
    """Of the processes that live: true where it is true for all."""
    HIGHEST = "highest"
    HISTOGRAM = "histogram"
    """A counter for each bucket, and one for the sum."""


class Family(NamedTuple):
    kind: FamilyKind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


FAMILIES: Final[Mapping[str, Family]] = {
    "connections_open": Family(FamilyKind.GAUGE, "WebSockets that are open"),
    "connections_opened": Family(FamilyKind.COUNTER, "WebSocket handshakes accepted"),
    "connections_closed": Family(FamilyKind.COUNTER, "Connections ended, by close code and by whom", ("code", "by")),
    "handshakes_refused": Family(FamilyKind.COUNTER, "Connections turned away before accept", ("status",)),
    "refusals": Family(FamilyKind.COUNTER, "What the gate refused, by reason", ("reason",)),
    "keepalive_timeouts": Family(FamilyKind.COUNTER, "Peers that did not answer a ping in time"),
    "send_timeouts": Family(FamilyKind.COUNTER, "Peers that took nothing for send_timeout"),
    "protocol_violations": Family(FamilyKind.COUNTER, "Peers that broke the protocol or a limit", ("code",)),
    "connection_seconds": Family(FamilyKind.HISTOGRAM, "How long connections lasted", (), DURATIONS),
    "hub_published_bytes": Family(FamilyKind.COUNTER, "Bytes of data published from here"),
    "hub_dropped": Family(FamilyKind.COUNTER, "Messages lost by overflow policies", ("policy",)),
    "hub_recoveries": Family(FamilyKind.COUNTER, "Attempts to go on from a position", ("recovered",)),
    "hub_recovered_messages": Family(FamilyKind.COUNTER, "Messages delivered by recovery"),
    "hub_backend_losses": Family(FamilyKind.COUNTER, "Times the connection to the backend broke"),
    "hub_backend_failures": Family(FamilyKind.COUNTER, "Requests to the backend that failed", ("operation",)),
    "hub_backend_seconds": Family(
        FamilyKind.HISTOGRAM, "Time the backend took for one request", ("operation",), LATENCIES
    ),
    "hub_outbox_highest_bytes": Family(FamilyKind.HIGHEST, "Fullest outbox so far"),
    "hub_connected": Family(FamilyKind.LOWEST, "1 while the backend is there", ("backend",)),
    "hub_connections": Family(FamilyKind.GAUGE, "Connections in at least one topic", ("backend",)),
    "hub_topics": Family(FamilyKind.GAUGE, "Topics with receivers, in each process", ("backend",)),
    "hub_memberships": Family(FamilyKind.GAUGE, "Connections times topics", ("backend",)),
    "hub_published": Family(FamilyKind.COUNTER, "Messages published from here", ("backend",)),
    "hub_delivered": Family(FamilyKind.COUNTER, "Messages handed to receivers", ("backend",)),
    "hub_disconnected": Family(FamilyKind.COUNTER, "Receivers disconnected for being too slow", ("backend",)),
}

_TOGETHER: Final[Mapping[FamilyKind, Callable[[float, float], float]]] = {
    FamilyKind.LOWEST: min,
    FamilyKind.HIGHEST: max,
}
_OUTLIVE: Final = frozenset({FamilyKind.COUNTER, FamilyKind.HISTOGRAM})


@functools.lru_cache(maxsize=1024)
def key_of(name: str, labels: tuple[str, ...], part: str = "") -> str:
    """The key of a number in a ledger. `part` is a histogram's bucket, or its sum."""
    return json.dumps([name, *labels, part])


def holds_on(key: str) -> bool:
    """Whether a number counts on when its process has ended."""
    family = FAMILIES.get(_read(key)[0])
    return family is not None and family.kind in _OUTLIVE


def observe(ledger: Ledger, name: str, labels: tuple[str, ...], value: float) -> None:
    """Put a value into a histogram."""
    bound = next((bound for bound in FAMILIES[name].buckets if value <= bound), math.inf)
    ledger.add(key_of(name, labels, _bound(bound)), 1.0)
    ledger.add(key_of(name, labels, "sum"), value)


def shown(processes: Iterable[tuple[bool, Mapping[str, float]]]) -> Iterable[Metric]:
    """The families as Prometheus reads them. A counter without labels is shown before it counts."""
    numbers: dict[str, dict[tuple[str, ...], dict[str, float]]] = {
        name: {} if family.labels else {(): {}} for name, family in FAMILIES.items()
    }
    for lives, values in processes:
        for key, value in values.items():
            name, labels, part = _read(key)
            if name not in FAMILIES:  # in a folder that an older version has used
                continue
            kind = FAMILIES[name].kind
            if lives or kind in _OUTLIVE:
                parts = numbers[name].setdefault(labels, {})
                together = _TOGETHER.get(kind, float.__add__)
                parts[part] = together(parts[part], value) if part in parts else value
    for name, family in FAMILIES.items():
        yield _metric(name, family, numbers[name])


def _metric(name: str, family: Family, numbers: Mapping[tuple[str, ...], Mapping[str, float]]) -> Metric:
    make: Any = {FamilyKind.COUNTER: CounterMetricFamily, FamilyKind.HISTOGRAM: HistogramMetricFamily}.get(
        family.kind, GaugeMetricFamily
    )
    metric: Any = make(f"antiphon_{name}", family.text, labels=family.labels)
    for labels, parts in numbers.items():
        if family.kind is not FamilyKind.HISTOGRAM:
            metric.add_metric(labels, parts.get("", 0.0))
            continue
        count, buckets = 0.0, []
        for bound in map(_bound, (*family.buckets, math.inf)):
            count += parts.get(bound, 0.0)
            buckets.append((bound, count))
        metric.add_metric(labels, buckets, parts.get("sum", 0.0))
    made: Metric = metric
    return made


def _bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else str(bound)


def _read(key: str) -> tuple[str, tuple[str, ...], str]:
    name, *labels, part = json.loads(key)
    return name, tuple(labels), part
