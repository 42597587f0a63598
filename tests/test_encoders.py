"""`jsonable_encoder`: any value in a form that `json.dumps` takes."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field

from antiphon.encoders import jsonable_encoder


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Pet(BaseModel):
    name: str = Field(alias="petName", default="Rex")
    born: datetime.date | None = None
    owner: str | None = None


class Plain:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


UUID = uuid.UUID(int=7)
DAY = datetime.date(2026, 3, 1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": 1, "b": [True, None]}, {"a": 1, "b": [True, None]}),
        ((1, "two"), [1, "two"]),
        (Colour.RED, "red"),
        (Point(1, 2), {"x": 1, "y": 2}),
        (DAY, "2026-03-01"),
        (UUID, str(UUID)),
        ({UUID: DAY}, {str(UUID): "2026-03-01"}),
        (Pet(petName="Ada", born=DAY), {"petName": "Ada", "born": "2026-03-01", "owner": None}),
        (Plain(name="x", colours=[Colour.RED]), {"name": "x", "colours": ["red"]}),
        ({"_sa_instance_state": object(), "id": 1}, {"id": 1}),
    ],
)
def test_a_value_has_the_plain_form_that_pydantic_gives_it(value: Any, plain: Any) -> None:
    assert jsonable_encoder(value) == plain
    json.dumps(jsonable_encoder(value))


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"by_alias": False}, {"name": "Rex", "born": None, "owner": "Ada"}),
        ({"exclude_unset": True}, {"owner": "Ada"}),
        ({"exclude_defaults": True}, {"owner": "Ada"}),
        ({"exclude_none": True}, {"petName": "Rex", "owner": "Ada"}),
        ({"include": {"owner"}}, {"owner": "Ada"}),
        ({"exclude": {"owner"}}, {"petName": "Rex", "born": None}),
    ],
)
def test_a_model_is_written_with_the_options_of_pydantic(options: dict[str, Any], plain: Any) -> None:
    assert jsonable_encoder(Pet(owner="Ada"), **options) == plain


def test_include_exclude_and_none_go_for_mappings_too() -> None:
    value = {"a": 1, "b": None, "c": 3}
    assert jsonable_encoder(value, include={"a", "b"}) == {"a": 1, "b": None}
    assert jsonable_encoder(value, exclude={"c"}, exclude_none=True) == {"a": 1}


def test_an_encoder_of_the_callers_goes_first_at_every_depth() -> None:
    encoders = {datetime.date: lambda day: day.year}
    assert jsonable_encoder({"days": [DAY]}, custom_encoder=encoders) == {"days": [2026]}
    assert jsonable_encoder(Pet(born=DAY), include={"born"}, custom_encoder=encoders) == {"born": 2026}


def test_what_has_neither_a_form_nor_attributes_is_named() -> None:
    with pytest.raises(ValueError, match="object has no JSON form"):
        jsonable_encoder(object())
