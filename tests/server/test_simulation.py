"""The engine's promises, in random lives (`simulation`)."""

from __future__ import annotations

import logging

import pytest

from tests.search import some
from tests.server import simulation

LIVES = some(4)


@pytest.mark.parametrize("block", range(4))
def test_random_lives_keep_every_promise(block: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    messages = 0
    for seed in range(block * LIVES, (block + 1) * LIVES):
        try:
            messages += simulation.run(seed).messages
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert messages > LIVES * 8, "these lives prove little"
