"""`antiphon bench`: measure a WebSocket server with many connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import click

from . import files
from .client import Address, BadAddress, Refused, TerminalClient, Unreachable
from .connect import headers_to_send, refusal
from .load import Durations, LoadPlan, Tally, load
from .parameters import Seconds
from .problem import Problem, WrongUsage
from .terminal import visible

SOME_FAILED: Final = 3
SPARE_FILES: Final = 32
BUSY: Final = 0.9
"""Share of its core from which this command may itself be the bottleneck."""


@click.command("bench", context_settings={"show_default": True})
@click.argument("url")
@click.option("-c", "--connections", type=click.IntRange(1, 100_000), default=100, metavar="N", help="Connections.")
@click.option("--ramp", type=Seconds(), default=0.0, metavar="SECONDS", help="Spread the handshakes over so long.")
@click.option("--duration", type=Seconds(), default=10.0, metavar="SECONDS", help="Measure for so long.")
@click.option("--listen", is_flag=True, help="Send nothing, and count the messages that come.")
@click.option("--size", type=click.IntRange(1, 16 << 20), default=32, metavar="BYTES", help="Length of a message.")
@click.option("--message", metavar="TEXT", help="Send this text instead.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Messages a second, of all.")
@click.option("--patience", type=Seconds(), default=10.0, metavar="SECONDS", help="An answer later than this is none.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header to send (repeatable).")
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Subprotocol to offer (repeatable).")
@click.option("--token", metavar="TOKEN", help="Sent as Authorization: Bearer TOKEN.")
@click.option("--origin", metavar="ORIGIN", help="Sent as Origin, as a browser would.")
@click.option("--insecure", is_flag=True, help="Take any certificate (wss).")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(url: str, **options: Any) -> None:
    """Connect many times to the WebSocket at URL, and measure it.

    \b
    antiphon bench localhost:8000/echo
    antiphon bench wss://example.org/rooms/tea -c 5000 --ramp 30 --rate 500 --token "$TOKEN"
    antiphon bench localhost:8000/feed -c 1000 --listen --duration 60

    Each connection sends a message, and the next when one has come back: the endpoint has to answer each with one.
    With --listen none sends. Ctrl-C ends it early and prints what was measured by then.
    Measure your own servers only. Exit code: 0 all went well, 1 no connection, 2 wrong usage, 3 some failed.
    """
    try:
        address = Address.parse(url)
    except BadAddress as error:
        raise WrongUsage(str(error), "for example: antiphon bench ws://localhost:8000/echo") from None
    if options["listen"] and (options["message"] is not None or options["rate"] is not None):
        raise WrongUsage("--listen sends nothing, so it has no --message and no --rate")
    files.require(options["connections"], SPARE_FILES)
    headers = headers_to_send(options["headers"], address, token=options["token"], origin=options["origin"])
    opener = partial(
        TerminalClient.open,
        address,
        headers=headers,
        subprotocols=options["subprotocols"],
        insecure=options["insecure"],
        compress=not options["no_compression"],
    )
    message = None if options["listen"] else options["message"] or "x" * options["size"]
    plan = LoadPlan(
        connections=options["connections"],
        ramp=options["ramp"],
        duration=options["duration"],
        message=message,
        rate=options["rate"],
        patience=options["patience"],
    )
    tally = Tally(plan.connections)
    began = time.monotonic(), time.process_time()
    try:
        asyncio.run(_run(plan, opener, tally))
    except Unreachable as error:
        hints = ["--insecure takes any certificate"] if "certificate" in str(error) else []
        raise Problem(f"cannot connect: {error}", *hints) from None
    except Refused as error:
        raise refusal(error, address, verbose=False) from None
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    busy = (time.process_time() - began[1]) / max(time.monotonic() - began[0], 1e-9)
    click.echo(json.dumps(as_data(plan, tally, busy)) if options["as_json"] else "\n".join(as_text(plan, tally, busy)))
    sys.exit(SOME_FAILED if tally.errors else 0)


async def _run(plan: LoadPlan, opener: Any, tally: Tally) -> None:
    """One connection first, alone: faults of the address are reported as by `connect`."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: CTRL+C raises KeyboardInterrupt instead
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    first = await opener()
    await first.close()
    async for _ in first.events():
        pass
    await load(plan, opener, stop, tally)


def as_text(plan: LoadPlan, tally: Tally, busy: float) -> list[str]:
    """The result for a person."""
    opened = f"{tally.connected} of {tally.wanted} in {tally.connected_after:.2f} s"
    lines = [_line("connected", opened, tally.connecting)]
    if plan.message is not None:
        lines.append(_line("answers", _amount(tally.answers.count, tally.measured), tally.answers))
    if plan.message is None or tally.received != tally.answers.count:
        mebibytes = tally.received_bytes / max(tally.measured, 1e-9) / (1 << 20)
        lines.append(
            _line("received", f"{_amount(tally.received, tally.measured)}, {mebibytes:.2f} MiB/s", Durations())
        )
    lines += [_line("failed", f"{count} × {reason}", Durations()) for reason, count in tally.errors.most_common()]
    if busy > BUSY:
        lines.append(
            visible(
                f"This command kept its own core {busy:.0%} busy: it may be what was measured. Start several of it."
            )
        )
    return lines


def _line(what: str, amount: str, times: Durations) -> str:
    if not times.count:
        return f"{what:<10} {amount}"
    shown = "  ".join(f"{name} {_time(seconds)}" for name, seconds in _quantiles(times))
    return f"{what:<10} {amount:<32} {shown}"


def _quantiles(times: Durations) -> Sequence[tuple[str, float]]:
    found = [(f"p{share}", times.quantile(share / 100)) for share in (50, 95, 99)]
    return [*found, ("max", times.longest)]


def _amount(count: int, seconds: float) -> str:
    return f"{count}, {count / max(seconds, 1e-9):.1f}/s"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def as_data(plan: LoadPlan, tally: Tally, busy: float) -> dict[str, Any]:
    """The result for a program; times are in seconds."""

    def times(histogram: Durations) -> dict[str, float] | None:
        return {name: round(value, 7) for name, value in _quantiles(histogram)} if histogram.count else None

    return {
        "connections": {
            "wanted": tally.wanted,
            "connected": tally.connected,
            "seconds": tally.connected_after,
            "times": times(tally.connecting),
        },
        "answers": None
        if plan.message is None
        else {
            "count": tally.answers.count,
            "per_second": tally.answers.count / max(tally.measured, 1e-9),
            "times": times(tally.answers),
        },
        "received": {"count": tally.received, "bytes": tally.received_bytes, "seconds": tally.measured},
        "failed": dict(tally.errors),
        "own_cpu": round(busy, 3),
    }
