"""The hub's promises, in random lives: in virtual time (`simulation`), and on real backends (`chaos`)."""

from __future__ import annotations

import logging

import pytest

from tests.hub import chaos, simulation
from tests.search import some

LIVES = some(2)


@pytest.mark.parametrize("block", range(5))
def test_random_lives_keep_every_promise(block: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for seed in range(block * LIVES, (block + 1) * LIVES):
        life = simulation.run(seed)
        assert len(life.stays) > 20, f"seed {seed} proves little"


@pytest.mark.parametrize("backend", ["redis", "relay"])
async def test_a_random_life_on_a_real_backend_keeps_every_promise(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    life = await chaos.run(backend, seed=1)
    assert len(life.stays) > 20
