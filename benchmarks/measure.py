"""Starts one server on CPU 0 and the load generator on CPU 1, and reads the server's CPU time and memory around it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from peers import SERVERS, Feature, Peer
from workloads import Figure, Workload

START_SECONDS = 20.0
LOAD_SECONDS = 120.0


class BenchmarkError(Exception):
    """A server did not start, or the load generator could not finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    bin: Path
    build: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    peer: str
    workload: str
    value: float
    rate: float
    p50us: float
    p99us: float
    rss_kb: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(peer: Peer, workload: Workload, places: Places) -> Result:
    port = free_port()
    with redis(peer) as url, server(peer, workload, places, port, url) as process:
        return load(peer, workload, places, process.pid, port)


@contextlib.contextmanager
def redis(peer: Peer) -> Iterator[str | None]:
    """On the load generator's CPU: the measured process is the one that serves WebSockets."""
    if not peer.redis:
        yield None
        return
    port = free_port()
    argv = ["taskset", "-c", "1", "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(peer, process, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def load(
    peer: Peer, workload: Workload, places: Places, pid: int, port: int, env: Mapping[str, str] | None = None
) -> Result:
    argv = [str(places.build / "wsload"), workload.mode, "127.0.0.1", str(port), workload.path]
    argv += [str(argument) for argument in workload.args]
    if workload.mode == "idle":
        _warm_up(places, workload, port)
    env = {**os.environ, **workload.env, **(env or {})}
    if Feature.TYPED in workload.needs:
        env["WSTEXT"] = peer.message
    cpu = rss = 0.0
    figures: dict[str, float] = {}
    load = subprocess.Popen(
        ["taskset", "-c", "1", *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + LOAD_SECONDS
    try:
        assert load.stdout is not None
        for line in load.stdout:
            if line.startswith("begin"):
                cpu, rss = _cpu_seconds(pid), _rss_kb(pid)
            elif line.startswith("end"):
                cpu, rss = _cpu_seconds(pid) - cpu, _rss_kb(pid) - rss
            else:
                figures = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", line)}
        load.wait(max(1.0, deadline - time.monotonic()))
    finally:
        load.kill()
        error = load.communicate()[1]
    if load.returncode or not figures.get("msgs"):
        raise BenchmarkError(f"{peer.name}, {workload.name}: {error.strip() or 'no message came back'}")
    value = rss if workload.figure is Figure.MEMORY_PER_CONNECTION else cpu * 1e6
    return Result(
        peer=peer.name,
        workload=workload.name,
        value=value / figures["msgs"],
        rate=figures["rate"],
        p50us=figures["p50us"],
        p99us=figures["p99us"],
        rss_kb=int(_rss_kb(pid)),
    )


def _warm_up(places: Places, workload: Workload, port: int) -> None:
    """Memory before the connections is that of a process that has served some."""
    argv = [str(places.build / "wsload"), "idle", "127.0.0.1", str(port), workload.path, "20", "0.3"]
    subprocess.run(argv, env={**os.environ, **workload.env}, check=True, capture_output=True, timeout=60)
    time.sleep(0.3)


@contextlib.contextmanager
def server(
    peer: Peer, workload: Workload, places: Places, port: int, hub: str | None, cpu: str = "0"
) -> Iterator[subprocess.Popen[bytes]]:
    extra = peer.deflate_argv if workload.deflate else peer.plain_argv
    argv = [part.format(bin=places.bin, build=places.build, port=port) for part in (*peer.argv, *extra)]
    env = {**os.environ, **dict(peer.env), "NODE_PATH": str(places.build / "node_modules"), "PYTHONPATH": str(SERVERS)}
    if hub is not None:
        env["BENCH_HUB"] = hub
    process = subprocess.Popen(
        ["taskset", "-c", cpu, *argv],
        cwd=SERVERS,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await_port(peer, process, port)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_port(peer: Peer, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            time.sleep(0.3)
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{peer.name} did not start (exit status {process.poll()})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads, to the nanosecond."""
    total = 0
    for member in _family(pid):
        for schedstat in Path(f"/proc/{member}/task").glob("*/schedstat"):
            total += int(schedstat.read_text().split()[0])
    return total / 1e9


def _rss_kb(pid: int) -> float:
    total = 0
    for member in _family(pid):
        match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{member}/status").read_text())
        total += int(match[1]) if match else 0
    return float(total)
