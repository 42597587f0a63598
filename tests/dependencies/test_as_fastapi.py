"""The same signature and the same connection give the same values or errors as in the installed FastAPI."""

from __future__ import annotations

import datetime
import decimal
import enum
import textwrap
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import annotated_types
import fastapi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Json

import antiphon.dependencies as ours
from antiphon.connection import WebSocket

from .support import Pairs, outcome_here, outcome_in_fastapi


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Filter(BaseModel):
    limit: int = Field(10, le=100)
    tags: list[str] = []
    order: Literal["up", "down"] = "up"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    page_size: int = Field(5, alias="pageSize")


class Trace(BaseModel):
    x_trace_id: str
    accept_tags: list[str] = []
    plain: str = Field("none", alias="under_score")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    user_name: str = Field(alias="userName")


class Choices(BaseModel):
    model_config = ConfigDict(extra="allow")

    one: int = Field(1, validation_alias=AliasChoices("first", "uno"))


COMMON: dict[str, Any] = {
    "Annotated": Annotated,
    "Literal": Literal,
    "Optional": typing.Optional,
    "Union": typing.Union,
    "Any": Any,
    "AliasChoices": AliasChoices,
    "Field": Field,
    "Json": Json,
    "Gt": annotated_types.Gt,
    "Color": Color,
    "Filter": Filter,
    "Strict": Strict,
    "Trace": Trace,
    "ByName": ByName,
    "Choices": Choices,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
}
MARKERS = ("Query", "Header", "Cookie", "Path", "Depends", "Body")


def endpoint_from(source: str, markers: Any, socket: type, record: Callable[..., None]) -> Any:
    """`source` is either a parameter list or, with `def endpoint`, whole code; markers are `markers`' own."""
    names = {**COMMON, **{name: getattr(markers, name) for name in MARKERS}, "WebSocket": socket, "record": record}
    if "def endpoint" not in source:
        source = (
            f"async def endpoint(websocket: WebSocket, {source}):\n    record(**locals())\n    await websocket.close()"
        )
    exec(compile("from __future__ import annotations\n" * ("FUTURE" in source) + source, "<case>", "exec"), names)
    return names["endpoint"]


async def assert_same(
    source: str, *, path: str = "/", query: Pairs, headers: Pairs, parts: dict[str, str]
) -> tuple[str, Any]:
    source = textwrap.dedent(source)
    theirs = await outcome_in_fastapi(
        lambda record: endpoint_from(source, fastapi, fastapi.WebSocket, record), path, query, headers, parts
    )
    mine = endpoint_from(source, ours, WebSocket, lambda **values: None)
    understood = endpoint_from(source, fastapi, fastapi.WebSocket, lambda **values: None)
    assert await outcome_here(mine, path, query, headers, parts) == theirs
    assert await outcome_here(understood, path, query, headers, parts) == theirs, "with FastAPI's own markers"
    assert isinstance(theirs, tuple)
    return theirs


QUERIES: list[tuple[str, list[str]]] = [
    ("q: int", ["", "q=1", "q=", "q=x", "q=1&q=2"]),
    ("q: str", ["", "q=", "q=%C3%A4+b%2Bc", "p=1"]),
    ("q", ["", "q=anything"]),
    ("q: int = 3", ["", "q=1", "q="]),
    ("q: int | None = None", ["", "q=1", "q=x", "q="]),
    ("q: Optional[str] = None", ["", "q=", "q=x"]),
    ("q: int | None", ["", "q=1"]),
    ("q: bool = False", ["q=yes", "q=0", "q=maybe"]),
    ("q: Union[int, str]", ["q=1", "q=x", ""]),
    ("q: float, p: int, r: str = 'r'", ["", "q=nan", "p=1.5", "q=1e3&p=7&r="]),
    ("q: Color", ["q=red", "q=green", ""]),
    ("q: Literal['a', 'b'] = 'b'", ["q=a", "q=c", ""]),
    ("q: datetime, d: date, t: timedelta", ["q=2020-01-02T03%3A04%3A05Z&d=2020-01-02&t=P1D", ""]),
    ("q: UUID", ["q=12345678123456781234567812345678", "q=1"]),
    ("q: Decimal = Query(max_digits=3, decimal_places=1)", ["q=1.5", "q=1.55", "q=12345"]),
    ("q: Any = None", ["q=1", ""]),
    ("q: Annotated[int, Query(gt=1, le=5)]", ["q=1", "q=5", "q=6", ""]),
    ("q: Annotated[int, Query(gt=1)] = 0", ["", "q=1", "q=2"]),
    ("q: Annotated[int, Query(), Field(gt=3)]", ["q=3", "q=4"]),
    ("q: Annotated[int, Gt(3)]", ["q=3", "q=4"]),
    ("q: Annotated[int, Field(gt=3)] = 1", ["q=3", ""]),
    ("q: int = Query(5, ge=3, multiple_of=2)", ["", "q=3", "q=4", "q=1"]),
    ("q: int = Query(...)", ["", "q=1"]),
    ("q: int = Query()", ["", "q=1"]),
    ("q: str = Query(None)", ["", "q=1"]),
    ("q: str = Query(default='d', min_length=2, max_length=3, pattern='^a')", ["q=a", "q=abcd", "q=bc"]),
    ("q: str = Query(alias='item-query')", ["q=1", "item-query=2", ""]),
    ("q: str = Query('d', validation_alias='other')", ["q=1", "other=2", ""]),
    ("q: str = Query(validation_alias=AliasChoices('one', 'two'))", ["two=2", "one=1&two=2", ""]),
    ("q: Annotated[str, Query(alias='a', title='T', description='D', examples=['x'], deprecated=True)]", ["a=1", ""]),
    ("q: int = Query(default_factory=lambda: 4)", ["", "q=1"]),
    ("q: Annotated[list[int], Query(default_factory=lambda: [1])]", ["", "q=1"]),
    ("q: Annotated[int, Query(validate_default=True, gt=5)] = 1", ["", "q=7"]),
    ("q: Annotated[int, Query(strict=True)]", ["q=7"]),
    ("q: Annotated[float, Query(allow_inf_nan=False)]", ["q=inf", "q=1"]),
    ("q: list[int] = Query()", ["", "q=1&q=2", "q=x&q=1&q=y"]),
    ("q: list[str] = Query([])", ["", "q=", "q=a&q=b"]),
    ("q: list[str] = Query(['foo', 'bar'], max_length=3)", ["", "q=1&q=1&q=1&q=1"]),
    ("q: Annotated[list[str] | None, Query()] = None", ["", "q=a"]),
    ("q: Annotated[set[int], Query()]", ["", "q=1&q=1"]),
    ("q: Annotated[tuple[int, str], Query()]", ["q=1", "q=1&q=b"]),
    ("q: Annotated[tuple[int, ...], Query()]", ["q=1&q=2"]),
    ("q: Annotated[frozenset[Color], Query()]", ["q=red", "q=x"]),
    ("q: Annotated[list, Query()]", ["q=1&q=2"]),
    ("q: Annotated[Json[list[int]], Query()]", ["q=%5B1%2C2%5D", "q=%5B1%2C%27x%27%5D", ""]),
    ("q: list[int] = []", ["", "q=1"]),
    ("q: Filter | None = None, r: dict[str, int] = Body({'a': 1}), s: Strict = Body(None)", ["", "q=1"]),
    ("q: Annotated[Filter, Query()]", ["", "limit=5&tags=a&tags=b", "limit=101&order=x"]),
    ("q: Annotated[Strict, Query()]", ["name=n&pageSize=3", "name=n&page_size=3", "x=1&x=2"]),
    ("q: Annotated[ByName, Query()]", ["userName=a", "user_name=b", ""]),
    ("q: Annotated[Choices, Query()]", ["uno=2", "first=x", "rest=1&rest=2"]),
    ("q: Annotated[Filter | None, Query()] = None", ["", "limit=1", "unknown=1", "limit=x"]),
    ("q: Annotated[Filter, Query()], r: int", ["", "r=1&limit=z"]),
]


@pytest.mark.parametrize(("source", "queries"), QUERIES, ids=[source for source, _ in QUERIES])
async def test_a_query_reads_as_in_fastapi(source: str, queries: list[str]) -> None:
    for query in queries:
        pairs = parse_qsl(query, keep_blank_values=True)
        await assert_same(source, query=pairs, headers=[], parts={})


HEADERS: list[tuple[str, list[Pairs]]] = [
    ("user_agent: Annotated[str | None, Header()] = None", [[("User-Agent", "me")]]),
    ("x_token: str = Header()", [[], [("X-Token", "t")], [("x_token", "t")], [("x-token", "")]]),
    ("x_token: str = Header(convert_underscores=False)", [[("x-token", "t")], [("x_token", "t")]]),
    ("x_token: Annotated[list[str], Header()]", [[("X-Token", "a"), ("x-token", "b")], []]),
    ("x_token: list[int] = Header([])", [[("X-Token", "a"), ("x-token", "2")], []]),
    ("x: int = Header(alias='X-Number_Of')", [[("x-number_of", "1")], [("x", "1")], [("x-number-of", "1")]]),
    (
        "h: Annotated[Trace, Header()]",
        [
            [("x-trace-id", "1"), ("accept-tags", "a"), ("accept-tags", "b")],
            [],
            [("x_trace_id", "1")],
            [("x-trace-id", "1"), ("under_score", "u")],
        ],
    ),
    ("h: Annotated[Trace, Header(convert_underscores=False)]", [[("x_trace_id", "1")], [("x-trace-id", "1")]]),
    ("c: str = Cookie()", [[], [("Cookie", "c=1; d=2")], [("Cookie", "c=")]]),
    ("c: Annotated[int, Cookie(alias='n-m', gt=3)] = 9", [[], [("Cookie", "n-m=2")], [("Cookie", "n-m=7")]]),
    ("c: Annotated[list[int], Cookie()]", [[("Cookie", "c=1")], []]),
    ("c: Annotated[Strict, Cookie()]", [[("Cookie", "name=n")], [("Cookie", "name=n; other=1; pageSize=x")]]),
    ("c: int = Cookie(), h: int = Header(), q: int = Query()", [[], [("h", "1"), ("cookie", "c=x")]]),
]


@pytest.mark.parametrize(("source", "headers"), HEADERS, ids=[source for source, _ in HEADERS])
async def test_headers_and_cookies_read_as_in_fastapi(source: str, headers: list[Pairs]) -> None:
    for sent in headers:
        await assert_same(source, query=[], headers=sent, parts={})


PATHS = [
    ("item: int", "/{item}", ["1", "x", "1.5"]),
    ("item", "/{item}", ["a b"]),
    ("item: int = 3", "/{item}", ["1"]),
    ("item: Annotated[int, Path(ge=2, le=3)]", "/{item}", ["1", "2"]),
    ("item: int = Path(gt=2)", "/{item}", ["1", "7"]),
    ("item: str = Path(...)", "/{item}", ["1"]),
    ("item: Color", "/{item}", ["red", "pink"]),
    ("other: str = Path(alias='item')", "/{item}", ["1"]),
    ("item: Annotated[int, Field(gt=5)]", "/{item}", ["1", "6"]),
    ("item: UUID, q: int", "/{item}", ["z"]),
    ("elsewhere: str = Path()", "/{item}", ["1"]),
]


@pytest.mark.parametrize(("source", "path", "parts"), PATHS, ids=[source for source, _, _ in PATHS])
async def test_a_path_reads_as_in_fastapi(source: str, path: str, parts: list[str]) -> None:
    for part in parts:
        await assert_same(source, path=path, query=[], headers=[], parts={"item": part})


DEPENDENCIES = [
    """
    def common(q: str, limit: int = 10):
        return q, limit
    async def endpoint(websocket: WebSocket, a: int, c: tuple = Depends(common), x_h: int = Header()):
        record(a=a, c=c, x_h=x_h); await websocket.close()
    """,
    """
    async def inner(n: int): return n + 1
    async def outer(m: int, n: Annotated[int, Depends(inner)], q: int = Query(alias="a")): return (m, n, q)
    async def endpoint(o: Annotated[tuple, Depends(outer)], websocket: WebSocket, b: int = 0):
        record(o=o, b=b); await websocket.close()
    """,
    """
    class Page:
        def __init__(self, skip: int = 0, limit: int = Query(5, le=10)):
            self.pair = skip, limit
        def __eq__(self, other): return self.pair == getattr(other, "pair", self.pair)
    async def endpoint(websocket: WebSocket, page: Annotated[Any, Depends(Page)], again: Page = Depends()):
        record(same=page is again, pair=page.pair); await websocket.close()
    """,
    """
    # FUTURE
    async def count(n: int = 1) -> "Unknown":
        yield n
    async def endpoint(
        websocket: "WebSocket", n: "Annotated[int, Depends(count)]", items: "Annotated[list[int], Query()]"
    ):
        record(n=n, items=items); await websocket.close()
    """,
]
DEPENDENCY_QUERIES: list[Pairs] = [
    [],
    [("a", "1"), ("q", "x")],
    [("n", "x"), ("m", "1"), ("items", "1"), ("items", "a")],
    [("n", "2"), ("m", "1"), ("a", "3"), ("skip", "x"), ("limit", "11"), ("items", "1")],
]


@pytest.mark.parametrize("source", DEPENDENCIES)
@pytest.mark.parametrize("query", DEPENDENCY_QUERIES)
async def test_errors_of_dependencies_come_in_fastapis_order(source: str, query: Pairs) -> None:
    kind, _ = await assert_same_values_apart(source, query)
    assert kind in ("values", "errors")


async def assert_same_values_apart(source: str, query: Pairs) -> tuple[str, Any]:
    """As `assert_same`, but the endpoint itself records its values, run with ours."""
    source = textwrap.dedent(source)
    headers = [("x-h", "1")]
    theirs = await outcome_in_fastapi(
        lambda record: endpoint_from(source, fastapi, fastapi.WebSocket, record), "/", query, headers, {}
    )
    for markers, socket in ((ours, WebSocket), (fastapi, fastapi.WebSocket)):
        seen: list[Any] = []
        endpoint = endpoint_from(source, markers, socket, lambda seen=seen, **values: seen.append(values))
        kind, mine = await outcome_here(endpoint, "/", query, headers, {})
        if kind == "values":
            await endpoint(websocket=Closable(), **mine)
            (mine,) = seen
        assert (kind, mine) == each_error_once(theirs)
    assert isinstance(theirs, tuple)
    return theirs


def each_error_once(outcome: tuple[str, Any]) -> tuple[str, Any]:
    """FastAPI repeats the errors of a dependency for every place that uses it; we report them once."""
    kind, found = outcome
    return kind, [error for n, error in enumerate(found) if error not in found[:n]] if kind == "errors" else found


class Closable:
    async def close(self) -> None:
        pass


TYPES = ["int", "str", "float", "bool", "int | None", "Color", "Literal['a', '1']", "UUID", "date", "Decimal"]
LISTS = ["list[int]", "set[str]", "tuple[int, ...]", "list[Color] | None"]
MARKER_OPTIONS = ["", "alias='n'", "gt=1", "max_length=2", "validation_alias='v'", "description='d'"]


@st.composite
def signatures(draw: st.DrawFn) -> str:
    parameters = []
    for name in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)):
        marker = draw(st.sampled_from(["Query", "Header", "Cookie"]))
        annotation = draw(st.sampled_from(TYPES + (LISTS if marker != "Cookie" else [])))
        options = draw(st.sampled_from(MARKER_OPTIONS))
        if ("gt" in options and annotation not in ("int", "float", "Decimal")) or (
            "max_length" in options and annotation not in ("str", "set[str]", "list[int]")
        ):
            options = ""
        default = draw(st.sampled_from(["", " = None"]))
        parameters.append(f"{name}: Annotated[{annotation}, {marker}({options})]{default}")
    parameters.sort(key=lambda parameter: parameter.endswith("None"))
    return ", ".join(parameters)


NAMES = st.sampled_from(["a", "b", "c", "n", "v"])
VALUES = st.sampled_from(["", "1", "2", "-1", "a", "red", "true", "1.5", "2020-01-01", "ab c"])
SENT = st.lists(st.tuples(NAMES, VALUES), max_size=5)


@settings(max_examples=60)
@given(
    source=signatures(), query=SENT, headers=SENT, cookies=st.dictionaries(NAMES, st.sampled_from(["1", "a", "red"]))
)
async def test_any_signature_reads_any_connection_as_fastapi_does(
    source: str, query: Pairs, headers: Pairs, cookies: dict[str, str]
) -> None:
    sent = [(name, value) for name, value in headers if value.strip() == value]
    if cookies:
        sent.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies.items())))
    await assert_same(source, query=query, headers=sent, parts={})
