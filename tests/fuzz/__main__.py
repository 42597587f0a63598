"""`python -m tests.fuzz --seconds 60`: fuzz the engine for a bounded time, half of it with each fuzzer.

hypothesis builds streams that are nearly right, afresh in every round; atheris, where it is installed, follows the
coverage from nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def hypothesis(seconds: float) -> int:
    """Rounds of the property tests, each with new examples; 0 when all passed."""
    end = time.monotonic() + seconds
    while True:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--no-header", "-x", HERE], check=False)
        if done.returncode or time.monotonic() >= end:
            return done.returncode


def atheris(seconds: float, corpus: Path) -> int:
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.atheris_parser", f"-max_total_time={max(1, int(seconds))}"]
    return subprocess.run([*command, "-max_len=1024", corpus], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz-corpus"), help="where atheris keeps its finds")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed (pip install atheris): all the time goes to hypothesis\n")
        return hypothesis(options.seconds)
    return hypothesis(options.seconds / 2) or atheris(options.seconds / 2, options.corpus)


if __name__ == "__main__":
    sys.exit(main())
