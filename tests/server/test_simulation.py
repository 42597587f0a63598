"""What the engine promises, in random lives (`simulation`)."""

from __future__ import annotations

import logging

import pytest

from tests.server import simulation


@pytest.mark.parametrize("block", range(4))
def test_random_lives_keep_every_promise(block: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    messages = 0
    for seed in range(block * 25, block * 25 + 25):
        try:
            messages += simulation.run(seed).messages
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert messages > 200, "these lives prove little"
