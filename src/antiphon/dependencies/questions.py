"""Queries on a finished plan, for warnings and for documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antiphon.hub import Topics

from .inspection import describe
from .params import Location
from .plan import Call, Plan, path_names
from .values import FieldReader


def unfilled(plan: Plan) -> Iterator[tuple[Call, str]]:
    """The callables and parameters that are read from the path, and are not in it."""
    names = path_names(plan.source.path)
    for step in (*plan.steps, plan.endpoint):
        for reader in step.readers:
            if isinstance(reader, FieldReader) and reader.location is Location.PATH and names.isdisjoint(reader.keys):
                known = step.label == describe(step.call)
                yield step.call if known else plan.endpoint.call, reader.keys[0]


def topics_of(plan: Plan) -> tuple[Topics[Any], ...]:
    """The typed topics that the endpoint or its dependencies take."""
    return tuple(step.call for step in plan.steps if isinstance(step.call, Topics))
