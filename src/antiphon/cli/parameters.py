"""Kinds of option values that click does not have."""

from __future__ import annotations

import ipaddress
import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """A duration of 0 or more. `inf` where waiting for ever makes sense. click's own range lets `nan` through."""

    name = "seconds"

    def __init__(self, *, endless: bool = False) -> None:
        super().__init__(min=0)
        self._endless = endless

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds) or (math.isinf(seconds) and not self._endless):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


class Proxies(click.types.StringParamType):
    """Addresses and networks of proxies, comma separated, or `*`.

    uvicorn compares all else with the address of the peer as it stands, so that it never fits, and trusts nobody.
    """

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        for one in (each.strip() for each in text.split(",")):
            if text != "*" and one and not one.startswith(("/", "unix:")):
                self._check(one, param, ctx)
        return text

    def _check(self, one: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            pass
        else:
            return
        try:
            hint = f"; write {ipaddress.ip_network(one, strict=False)}"
        except ValueError:
            hint = ", as 10.0.0.7 or 10.0.0.0/8, or * alone for all"
        self.fail(f"{one!r} is no IP address or network{hint}.", param, ctx)
