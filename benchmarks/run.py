"""Measures peers on workloads in turn, several rounds, and writes medians and plots.

python benchmarks/run.py                                  everything, into docs/benchmarks/ (about 40 minutes)
python benchmarks/run.py --rounds 1 --workload echo-32 --peer fastapi --peer antiphon --print
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from measure import BenchmarkError, Places, Result, measure
from peers import PEERS
from workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "benchmarks"
BASELINES = ("fastapi", "fastapi-typed")
LONGEST = 60e6  # µs; no run lasts as long
PACKAGES = ("antiphon", "fastapi", "uvicorn", "uvloop", "httptools", "websockets", "wsproto", "aiohttp", "picows")
PACKAGES += ("socketify", "granian", "hypercorn", "litestar", "chanx", "starlette", "Cython")


def main() -> int:
    arguments = _arguments()
    places = Places(bin=Path(sys.executable).parent, build=Path(arguments.build))
    _build(places.build)
    results = _measure_all(arguments, places)
    for workload, rows in results.items():
        _print_table(WORKLOADS[workload], rows)
    if not arguments.print:
        _write(results, arguments.rounds)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="only this one (repeatable)")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (repeatable)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", default=os.environ.get("BENCH_BUILD", str(HERE.parent / ".cache" / "bench")))
    parser.add_argument("--print", action="store_true", help="print only, write nothing")
    return parser.parse_args()


def _build(build: Path) -> None:
    build.mkdir(parents=True, exist_ok=True)
    for name in ("wsload", "floor"):
        source, program = HERE / "load" / f"{name}.c", build / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-w", "-o", str(program), str(source)], check=True)
    if not (build / "node_modules" / "ws").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", str(build), "ws"], check=False)


def _measure_all(arguments: argparse.Namespace, places: Places) -> dict[str, dict[str, Result]]:
    """Rounds outermost and peers in turn, so that a drift of the machine meets all of them alike."""
    runs: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for number in range(arguments.rounds):
        for name in arguments.workload or WORKLOADS:
            workload = WORKLOADS[name]
            for peer_name in arguments.peer or PEERS:
                peer = PEERS[peer_name]
                if workload.needs & ~peer.features:
                    continue
                print(f"round {number + 1}: {name} on {peer_name}", file=sys.stderr, flush=True)
                try:
                    runs[name, peer_name].append(measure(peer, workload, places))
                except BenchmarkError as error:
                    print(f"  left out: {error}", file=sys.stderr)
    results: dict[str, dict[str, Result]] = defaultdict(dict)
    for (name, peer_name), rows in runs.items():
        if not rows:
            continue
        results[name][peer_name] = _middle(rows)
    return results


def _middle(rows: list[Result]) -> Result:
    first = rows[0]
    return Result(
        peer=first.peer,
        workload=first.workload,
        value=median(row.value for row in rows),
        rate=median(row.rate for row in rows),
        p50us=median(row.p50us for row in rows),
        p99us=median(row.p99us for row in rows),
        rss_kb=int(median(row.rss_kb for row in rows)),
    )


def _print_table(workload: Workload, rows: dict[str, Result]) -> None:
    print(f"\n{workload.title} ({workload.figure.value})")
    base = next((rows[name].value for name in BASELINES if name in rows), None)
    for row in sorted(rows.values(), key=lambda row: row.value):
        ratio = f"{row.value / base:6.2f}" if base else "      "
        print(f"  {row.peer:22} {row.value:9.2f}  {ratio}  p50 {row.p50us:9.1f} µs  p99 {row.p99us:9.1f} µs")


def _write(results: dict[str, dict[str, Result]], rounds: int) -> None:
    from plot import bars

    DOCS.mkdir(parents=True, exist_ok=True)
    how_often = f"medians of {rounds} rounds" if rounds > 1 else "those of one round"
    page = [
        "# Benchmarks",
        "",
        "Written by `make bench`; how it is measured: `benchmarks/README.md`. Figures are "
        f"{how_often}; the ratio is to FastAPI on uvicorn in the same run.",
        "",
        _machine(),
        "",
    ]
    for name, rows in results.items():
        workload = WORKLOADS[name]
        bars(
            workload.title,
            workload.figure.value,
            [(PEERS[peer].label, row.value, "antiphon" in peer) for peer, row in rows.items()],
            DOCS / f"{name}.svg",
        )
        page += [f"## {workload.title}", "", f"![{workload.title}]({name}.svg)", ""]
        page += [f"| peer | {workload.figure.value} | ratio | p50 µs | p99 µs |", "|---|---|---|---|---|"]
        base = next((rows[name].value for name in BASELINES if name in rows), None)
        for peer, row in sorted(rows.items(), key=lambda item: item[1].value):
            ratio = f"{row.value / base:.2f}" if base else "–"
            timing = "– | –" if workload.mode == "idle" else f"{_latency(row.p50us)} | {_latency(row.p99us)}"
            page.append(f"| {PEERS[peer].label} | {row.value:.2f} | {ratio} | {timing} |")
        page.append("")
    (DOCS / "README.md").write_text("\n".join(page))
    everything = {name: {peer: row.as_dict() for peer, row in rows.items()} for name, rows in results.items()}
    (DOCS / "results.json").write_text(json.dumps(everything, indent=1) + "\n")


def _latency(microseconds: float) -> str:
    """A message whose time stamp was not understood seems to have taken hours: that is no latency."""
    return f"{microseconds:.0f}" if microseconds < LONGEST else "–"


def _machine() -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return (
        "<!-- prose: skip -->\n\n"
        f"Machine: {cpu}, {os.cpu_count()} cores (one for the server, one for the load), Linux {platform.release()}, "
        f"Python {platform.python_version()}; {', '.join(versions)}."
    )


if __name__ == "__main__":
    sys.exit(main())
