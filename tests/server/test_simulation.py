"""What the engine promises, in random lives (`simulation`), and that both twins live the same ones."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from antiphon.server import native
from tests.server import simulation

CALM = (10_000, 10_030)
"""Seeds of the lives that are compared."""


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


@pytest.mark.skipif(not native, reason="the other twin is not built")
def test_both_twins_live_the_same_lives(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    first, behind = CALM
    command = (sys.executable, "-m", "tests.server.simulation", "--trace", "--seeds", str(first), str(behind))
    environment = os.environ | {"ANTIPHON_PURE": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as pure:
        ours = [simulation.run(seed, calm=True).trace() for seed in range(first, behind)]
        output, _ = pure.communicate()
    theirs = output.splitlines()
    assert pure.returncode == 0, theirs[-1]
    for seed, (native_life, pure_life) in enumerate(zip(ours, theirs, strict=True), first):
        assert json.loads(json.dumps(native_life)) == json.loads(pure_life), f"seed {seed}"
