"""Kinds of option values that click does not have."""

from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """A duration of 0 or more; `inf` where waiting for ever makes sense. click's own range lets `nan` through."""

    name = "seconds"

    def __init__(self, *, endless: bool = False) -> None:
        super().__init__(min=0)
        self._endless = endless

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds) or (math.isinf(seconds) and not self._endless):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds
