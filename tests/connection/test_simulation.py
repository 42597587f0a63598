"""The promises of a connection on other servers, in random lives (`simulation`)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.connection import simulation
from tests.search import some

LIVES = some(6)


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Each world ends with a garbage collection, which need not look at all that was there before."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("block", range(5))
def test_random_lives_keep_every_promise(block: int) -> None:
    happened = 0
    for seed in range(block * LIVES, (block + 1) * LIVES):
        world = simulation.run(seed)
        assert not world.faults, f"seed {seed}:\n" + "\n".join(world.faults)
        happened += len(world.trace)
    assert happened > LIVES * 100, "these lives prove little"


def test_the_same_seed_gives_the_same_life() -> None:
    program = "from tests.connection import simulation; print(*simulation.run(7).trace, sep='\\n')"
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0].count(b"\n") > 50
    assert runs[0] == runs[1]
