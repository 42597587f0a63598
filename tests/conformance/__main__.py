"""`python -m tests.conformance`: the protocol suite against our server, on both twins, with and without compression."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from antiphon.wire import NATIVE
from tests.conformance import suite
from tests.conformance.servers import serving


def show_progress(case: str) -> None:
    sys.stderr.write(f"\r{case:12}\r")
    sys.stderr.flush()


async def check(title: str, url: str, chosen: list[str], options: argparse.Namespace, *, deflate: bool) -> bool:
    """Run the suite and print its table; whether all is well."""
    if not deflate:
        chosen = [case for case in chosen if suite.key(case)[0] < 12]
    start = time.monotonic()
    report = await suite.run(url, chosen, tell=show_progress if sys.stderr.isatty() else None)
    seconds = time.monotonic() - start
    sys.stdout.write(f"\n{title}: {len(chosen)} cases in {seconds:.0f} s\n{report.table()}\n")
    sys.stdout.flush()
    wrong = report.failed + report.with_behaviour("UNIMPLEMENTED")
    if options.strict:
        wrong += report.with_behaviour("NON-STRICT")
    return not wrong


async def main(options: argparse.Namespace) -> int:
    try:
        suite.build()
    except suite.CannotRun as error:
        sys.stderr.write(f"{error}\n")
        return 2
    without = suite.QUICK_WITHOUT if options.quick else ()
    chosen = suite.cases(options.cases, without=without, lite=options.lite)
    if options.url:
        return not await check(options.url, options.url, chosen, options, deflate=True)
    good = True
    for twin in options.twin:
        for deflate in options.deflate:
            async with serving(engine=options.engine, deflate=deflate, pure=twin == "pure") as url:
                title = f"{twin} {options.engine}, deflate {deflate}"
                good = await check(title, url, chosen, options, deflate=deflate != "off") and good
    return not good


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.conformance", description=__doc__)
    parser.add_argument("--url", help="an echo server of any make, instead of ours")
    parser.add_argument("--engine", choices=["server", "wire"], default="server")
    twins = ["pure", "native"] if NATIVE else ["pure"]
    parser.add_argument("--twin", nargs="+", choices=twins, default=twins)
    parser.add_argument(
        "--deflate", nargs="+", choices=["default", "takeover", "off"], default=["default", "takeover", "off"]
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="without limits and compression: seconds")
    size.add_argument("--lite", action="store_true", help="compressed messages up to 16 KiB only: a minute or two")
    parser.add_argument("--cases", default="*", help="shell patterns with commas between, such as 6.4.*,7.*")
    parser.add_argument("--strict", action="store_true", help="NON-STRICT fails, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
