"""The results of registration: injections, shared steps, overrides, and errors for signatures that can never work."""

import asyncio
import dataclasses
import functools
import timeit
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional

import fastapi
import fastapi.params
import fastapi.security
import pytest
import starlette.websockets
from pydantic import BaseModel, Field, TypeAdapter
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from antiphon.connection import WebSocket
from antiphon.dependencies import (
    Body,
    Cookie,
    Depends,
    File,
    Form,
    Header,
    Kind,
    Path,
    Query,
    Security,
    SecurityScopes,
    UploadFile,
    analyze,
    solve,
)
from antiphon.dependencies.plan import Injected
from antiphon.exceptions import (
    DependencyCycleError,
    DependencyScopeError,
    HTTPException,
    MissingResourceError,
    ParameterDeclarationError,
    ParameterErrors,
    RegistrationError,
)
from antiphon.hub import Position

from .support import no_receive, no_send, request, scope, values_of, websocket

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]


class Store:
    """Something an application has one of."""


class Item(BaseModel):
    name: str
    price: float = 1.0


async def nothing() -> None: ...


# ---- injection by annotation


async def test_connections_are_injected_under_any_name() -> None:
    async def endpoint(
        a: WebSocket,
        b: HTTPConnection,
        c: fastapi.WebSocket,
        d: starlette.websockets.WebSocket,
        e: "WebSocket[Any]",
        f: Annotated[WebSocket, "documentation"],
        g: WebSocket | None,
    ) -> None: ...

    connection = websocket()
    values = await values_of(endpoint, connection)
    assert set(values) == set("abcdefg")
    assert all(value is connection for value in values.values())


async def test_one_dependency_can_serve_both_kinds_of_routes() -> None:
    def either(
        connection: HTTPConnection,
        request: Request | None,
        other: Optional[WebSocket] = None,  # noqa: UP045
    ) -> tuple[Any, ...]:
        return connection, request, other

    async def endpoint(found: Annotated[tuple[Any, ...], Depends(either)]) -> None: ...

    socket, http = websocket(), request()
    assert (await values_of(endpoint, socket))["found"] == (socket, None, socket)
    assert (await values_of(endpoint, http))["found"] == (http, http, None)


async def test_a_default_serves_where_the_connection_is_of_the_other_kind() -> None:
    async def endpoint(request: Request = None) -> None: ...  # type: ignore[assignment]

    assert await values_of(endpoint) == {"request": None}


@pytest.mark.parametrize("wrong", [(Request, Kind.WEBSOCKET), (WebSocket, Kind.HTTP), (fastapi.WebSocket, Kind.HTTP)])
def test_a_connection_of_the_other_kind_is_refused_at_registration(wrong: tuple[type, Kind]) -> None:
    annotation, kind = wrong

    def dependency(needed: Any) -> None: ...

    dependency.__annotations__["needed"] = annotation
    with pytest.raises(RegistrationError, match=rf"dependency: parameter 'needed' is a {annotation.__name__}"):
        analyze(nothing, path="/", dependencies=[Depends(dependency)], kind=kind)


async def test_background_tasks_and_response_are_shared_by_all_who_ask() -> None:
    def adds(tasks: BackgroundTasks, response: Response) -> None:
        tasks.add_task(print, "dependency")
        response.headers["x-set"] = "yes"

    async def endpoint(tasks: fastapi.BackgroundTasks, again: BackgroundTasks, response: fastapi.Response) -> None:
        tasks.add_task(print, "endpoint")

    plan = analyze(endpoint, path="/", dependencies=[Depends(adds)])
    async with solve(plan, websocket()) as solved:
        await endpoint(**solved.values)
        assert solved.background is solved.values["again"]
        assert [task.args for task in solved.values["tasks"].tasks] == [("dependency",), ("endpoint",)]
        assert solved.response is not None
        assert dict(solved.response.headers) == {"x-set": "yes"}
        assert solved.response.status_code is None
    async with solve(analyze(nothing, path="/"), websocket()) as solved:
        assert (solved.background, solved.response) == (None, None)


async def test_resources_are_injected_by_their_class() -> None:
    class SpecialStore(Store):
        pass

    async def endpoint(
        store: Store, same: Annotated[Store, "doc"], maybe: Store | None, special: SpecialStore
    ) -> None: ...

    store = SpecialStore()
    values = await values_of(endpoint, resources={Store: store})
    assert all(value is store for value in values.values())


async def test_a_resource_the_application_lacks_is_a_named_error_unless_it_has_a_default() -> None:
    async def needs(store: Store) -> None: ...

    async def can_do_without(store: Store | None, other: Store = None) -> None: ...  # type: ignore[assignment]

    plan = analyze(needs, path="/", resources=[Store])
    with pytest.raises(MissingResourceError, match="parameter 'store' is a Store"):
        async with solve(plan, websocket()):
            pytest.fail("the endpoint must not run")
    async with solve(analyze(can_do_without, path="/", resources=[Store]), websocket()) as solved:
        assert solved.values == {"store": None, "other": None}


async def test_security_scopes_gather_along_the_way_to_a_dependency() -> None:
    def user(scopes: SecurityScopes, theirs: fastapi.security.SecurityScopes) -> tuple[str, str]:
        return scopes.scope_str, theirs.scope_str

    def active(user: Annotated[Any, Security(user, scopes=["me"])]) -> Any:
        return user

    async def endpoint(
        a: Annotated[Any, Security(active, scopes=["items", "me"])],
        b: Annotated[Any, Security(active, scopes=["other"])],
        c: Annotated[Any, fastapi.Security(user, scopes=["foreign"])],
        d: Annotated[Any, Depends(user)],
    ) -> None: ...

    values = await values_of(endpoint)
    assert values == {
        "a": ("items me", "items me"),
        "b": ("other me", "other me"),
        "c": ("foreign", "foreign"),
        "d": ("", ""),
    }


# ---- one run per connection


class Counter:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> int:
        self.runs += 1
        return self.runs


async def test_a_dependency_runs_once_per_connection_unless_told_otherwise() -> None:
    count = Counter()

    def nested(n: Annotated[int, Depends(count)], fresh: Annotated[int, Depends(count, use_cache=False)]) -> Any:
        return n, fresh

    async def endpoint(
        n: Annotated[Any, Depends(nested)],
        a: Annotated[int, Depends(count)],
        b: Annotated[int, fastapi.Depends(count, use_cache=False)],
    ) -> None: ...

    plan = analyze(endpoint, path="/", dependencies=[Depends(count)])
    for start in (0, 3):
        async with solve(plan, websocket()) as solved:
            assert solved.values == {"n": (start + 1, start + 2), "a": start + 1, "b": start + 3}


async def test_scopes_keep_runs_apart_only_where_somebody_looks_at_them() -> None:
    plain, looking = Counter(), Counter()

    def through(n: Annotated[int, Depends(plain)]) -> int:
        return n

    def looks(scopes: SecurityScopes) -> int:
        return looking()

    async def endpoint(
        a: Annotated[int, Security(through, scopes=["x"])],
        b: Annotated[int, Security(through, scopes=["y"])],
        c: Annotated[int, Security(looks, scopes=["x"])],
        d: Annotated[int, Security(looks, scopes=["y"])],
        e: Annotated[int, Security(looks, scopes=["x"])],
    ) -> None: ...

    assert await values_of(endpoint) == {"a": 1, "b": 1, "c": 1, "d": 2, "e": 1}


def test_a_dependency_used_everywhere_is_analysed_once() -> None:
    bottom: Callable[..., Any] = nothing
    for _ in range(60):

        def layer(a: Any, b: Any) -> None: ...

        layer.__defaults__ = (Depends(bottom), Depends(bottom))
        bottom = layer
    assert len(analyze(bottom, path="/").steps) == 60


# ---- every kind of callable


@dataclasses.dataclass
class Pager:
    limit: int = 10
    names: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, offset: int = 0) -> int:
        return self.limit + offset

    async def method(self, offset: int) -> int:
        return self.limit - offset

    @classmethod
    def make(cls, limit: int) -> "Pager":
        return cls(limit)

    def pages(self, offset: int) -> Iterator[int]:
        yield offset * self.limit


def counted(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return wrapper


@counted
async def wrapped(offset: int) -> int:
    return offset


def keywords(*, offset: int, factor: int, **rest: Any) -> int:
    assert not rest
    return offset * factor


PAGER = Pager(100)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (PAGER, 107),
        (PAGER.method, 93),
        (PAGER.pages, 700),
        (Pager.make, Pager(5)),
        (functools.partial(keywords, factor=3), 21),
        (functools.partial(PAGER.method), 93),
        (wrapped, 7),
        (lambda offset, *args, **kwargs: (offset, args, kwargs), ("7", (), {})),
    ],
    ids=["instance", "method", "generator method", "classmethod", "partial", "partial method", "wrapped", "lambda"],
)
async def test_any_callable_can_be_a_dependency(call: Any, expected: Any) -> None:
    async def endpoint(value: Annotated[Any, Depends(call)]) -> None: ...

    connection = websocket([("offset", "7"), ("limit", "5")])
    assert await values_of(endpoint, connection) == {"value": expected}


async def test_a_pydantic_model_can_be_a_dependency() -> None:
    class Filters(BaseModel):
        limit: int = Query(10, ge=1)
        name: Annotated[str | None, Query(alias="n")] = None

    async def endpoint(filters: Annotated[Filters, Depends()]) -> None: ...

    values = await values_of(endpoint, websocket([("limit", "3")]))
    assert values == {"filters": Filters(limit=3)}
    with pytest.raises(ParameterErrors):
        await values_of(endpoint, websocket([("limit", "0")]))


async def test_a_string_annotation_may_name_what_the_function_closes_over() -> None:
    class Local:
        def __init__(self, size: "int") -> None:
            self.size = size

    async def endpoint(
        value: "Annotated[Local, Depends()]", more: "Annotated[list[Local] | None, Depends(nothing)]"
    ) -> None:
        isinstance(value, Local)

    assert (await values_of(endpoint, websocket([("size", "4")])))["value"].size == 4


async def test_an_annotation_that_only_type_checkers_know_is_no_matter_beside_depends() -> None:
    async def endpoint(a: "OnlyForTypeCheckers" = Depends(lambda: 1)) -> "OnlyForTypeCheckers": ...  # noqa: B008

    assert await values_of(endpoint) == {"a": 1}


async def test_mutable_defaults_are_not_shared_between_connections() -> None:
    async def endpoint(tags: Annotated[list[str], Query()] = []) -> None: ...  # noqa: B006

    plan = analyze(endpoint, path="/")
    for _ in range(2):
        async with solve(plan, websocket()) as solved:
            solved.values["tags"].append("x")
            assert solved.values["tags"] == ["x"]


async def test_constraints_beside_a_marker_hold_in_both_styles() -> None:
    async def as_default(a: Annotated[int, Field(gt=1)] = Query(5)) -> None: ...

    async def as_annotation(a: Annotated[int, Field(gt=1), Query(lt=9)] = 5) -> None: ...

    async def old_name(a: str = Query("5", regex="^[1-9]$", example="1")) -> None: ...

    for endpoint in (as_default, as_annotation):
        assert await values_of(endpoint) == {"a": 5}
        with pytest.raises(ParameterErrors):
            await values_of(endpoint, websocket([("a", "1")]))
    with pytest.raises(ParameterErrors):
        await values_of(old_name, websocket([("a", "0")]))


async def test_use_cache_holds_for_dependencies_without_a_parameter() -> None:
    count = Counter()
    unnamed = [Depends(count), Depends(count), Depends(count, use_cache=False)]
    async with solve(analyze(nothing, path="/", dependencies=unnamed), websocket()):
        assert count.runs == 2


# ---- dependency_overrides


async def test_overrides_apply_at_every_depth_and_to_what_overrides_need() -> None:
    def leaf() -> str:
        return "leaf"

    def middle(a: Annotated[str, Depends(leaf)]) -> str:
        return f"middle({a})"

    async def endpoint(a: Annotated[str, Depends(middle)]) -> None: ...

    def other_middle(q: str, a: Annotated[str, Depends(leaf)]) -> str:
        return f"other({q},{a})"

    plan = analyze(endpoint, path="/")
    sent = websocket([("q", "Q")])

    async def result(**more: Any) -> Any:
        async with solve(plan, sent, **more) as solved:
            return solved.values["a"]

    assert await result() == "middle(leaf)"
    assert await result(overrides={leaf: lambda: "fake"}) == "middle(fake)"
    assert await result(overrides={middle: other_middle, leaf: lambda: "fake"}) == "other(Q,fake)"
    assert await result(overrides={middle: other_middle}) == "other(Q,leaf)"
    assert await result(overrides={}) == "middle(leaf)"


async def test_an_override_may_yield_where_the_original_returned() -> None:
    log: list[str] = []

    async def endpoint(a: Annotated[int, Depends(nothing)]) -> None: ...

    def replacement() -> Iterator[int]:
        yield 5
        log.append("ended")

    assert await values_of(endpoint, overrides={nothing: replacement}) == {"a": 5}
    assert log == ["ended"]


async def test_plans_for_overrides_do_not_pile_up() -> None:
    async def endpoint(a: Annotated[int, Depends(nothing)]) -> None: ...

    plan = analyze(endpoint, path="/")
    for number in range(50):
        async with solve(plan, websocket(), overrides={nothing: lambda number=number: number}) as solved:
            assert solved.values == {"a": number}
    assert len(plan.variants) < 20


# ---- impossible signatures


def cyclic_a(b: Any) -> None: ...


def cyclic_b(a: Any) -> None: ...


cyclic_a.__defaults__ = (Depends(cyclic_b),)
cyclic_b.__defaults__ = (Depends(cyclic_a),)


def test_a_cycle_is_refused_with_its_path() -> None:
    with pytest.raises(DependencyCycleError, match=r"cyclic_a -> .*cyclic_b -> .*cyclic_a"):
        analyze(cyclic_a, path="/")


def test_what_outlives_its_dependency_is_refused() -> None:
    def short() -> Iterator[None]:
        yield

    def longer(a: Annotated[None, Depends(short, scope="function")]) -> Iterator[None]:
        yield

    async def endpoint(a: Annotated[None, Depends(longer)]) -> None: ...

    async def fine(a: Annotated[None, Depends(longer, scope="function")]) -> None: ...

    with pytest.raises(DependencyScopeError, match='"longer" has a scope of "request"'):
        analyze(endpoint, path="/")
    assert len(analyze(fine, path="/").steps) == 2


async def unknown_annotation(a: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def unknown_inside(a: Annotated[list["Missing"], Query()]) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def unknown_class(a: Annotated["Missing", Depends()]) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def no_validation(a: Store) -> None: ...


async def body_on_a_websocket(a: Item) -> None: ...


async def list_without_marker(a: list[int]) -> None: ...


async def twice(a: Annotated[int, Query()] = Header()) -> None: ...


async def depends_twice(a: Annotated[int, Depends(nothing)] = Depends(nothing)) -> None: ...


async def default_inside(a: Annotated[int, Query(5)]) -> None: ...


async def two_defaults(a: Annotated[int, Query(default_factory=int)] = 3) -> None: ...


async def path_default(item: Annotated[int, Path()] = 3) -> None: ...


async def path_as_query(item: Annotated[int, Query()]) -> None: ...


async def path_model(item: Item) -> None: ...


async def query_of_models(a: Annotated[list[Item], Query()]) -> None: ...


async def query_mapping(a: Annotated[dict[str, int], Query()]) -> None: ...


async def positional(a: int, /) -> None: ...


async def marked_websocket(a: Annotated[WebSocket, Query()]) -> None: ...


async def depends_on_nothing(a: Annotated[Any, Depends()]) -> None: ...


async def depends_on_a_string(a: int = Depends("text")) -> None: ...  # type: ignore[arg-type]


async def builtin_without_signature(a: int = Depends(dict)) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [
        (unknown_annotation, RegistrationError),
        (unknown_inside, RegistrationError),
        (unknown_class, RegistrationError),
        (no_validation, RegistrationError),
        (body_on_a_websocket, RegistrationError),
        (list_without_marker, RegistrationError),
        (positional, RegistrationError),
        (twice, ParameterDeclarationError),
        (depends_twice, ParameterDeclarationError),
        (default_inside, ParameterDeclarationError),
        (two_defaults, ParameterDeclarationError),
        (path_default, ParameterDeclarationError),
        (path_as_query, ParameterDeclarationError),
        (path_model, ParameterDeclarationError),
        (query_of_models, ParameterDeclarationError),
        (query_mapping, ParameterDeclarationError),
        (marked_websocket, ParameterDeclarationError),
        (depends_on_nothing, ParameterDeclarationError),
        (depends_on_a_string, ParameterDeclarationError),
    ],
    ids=lambda value: value.__name__,
)
def test_what_can_never_work_is_refused_naming_function_and_parameter(
    endpoint: Callable[..., Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"{endpoint.__name__}: parameter '(a|item)'"):
        analyze(endpoint, path="/{item:int}")


def test_a_callable_without_a_signature_is_refused_by_name() -> None:
    with pytest.raises(RegistrationError, match=r"builtins\.dict has no signature"):
        analyze(builtin_without_signature, path="/")


def test_what_is_no_dependency_is_refused_in_a_list_of_dependencies() -> None:
    for wrong in (nothing, Depends(), "text"):
        with pytest.raises(ParameterDeclarationError, match="dependencies take Depends"):
            analyze(nothing, path="/", dependencies=[wrong])  # type: ignore[list-item]


@pytest.mark.parametrize("marker", [Query, Header, Cookie, Body, Form, Path])
def test_markers_refuse_options_they_do_not_know(marker: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="unexpected options: maximum"):
        marker(maximum=3)


def test_registration_leaves_the_markers_as_they_were() -> None:
    shared = fastapi.Query(alias="x", gt=1)
    before = repr((shared.annotation, shared.default, shared.alias, shared.metadata))

    async def one(a: int = shared) -> None: ...

    async def two(b: "Annotated[str | None, shared]" = None) -> None: ...

    analyze(one, path="/")
    two.__annotations__["b"] = Annotated[float | None, shared]
    analyze(two, path="/")
    assert repr((shared.annotation, shared.default, shared.alias, shared.metadata)) == before


# ---- bodies of companion HTTP routes

JSON = [("content-type", "application/json")]
FORM = [("content-type", "application/x-www-form-urlencoded")]


async def test_a_single_model_is_the_whole_body_and_several_are_its_keys() -> None:
    async def one(item: Item) -> None: ...

    async def two(item: Item, other: Annotated[Item, Body(alias="o")], n: Annotated[int, Body()] = 1) -> None: ...

    async def embedded(item: Annotated[Item, Body(embed=True)]) -> None: ...

    item = Item(name="a")
    assert await values_of(one, request(b'{"name": "a"}', JSON)) == {"item": item}
    both = request(b'{"item": {"name": "a"}, "o": {"name": "b", "price": 2}}', JSON)
    assert await values_of(two, both) == {"item": item, "other": Item(name="b", price=2), "n": 1}
    assert await values_of(embedded, request(b'{"item": {"name": "a"}}', JSON)) == {"item": item}


async def test_a_dependency_shares_the_body_with_the_endpoint() -> None:
    def reads(user: Item) -> str:
        return user.name

    async def endpoint(item: Item, name: Annotated[str, Depends(reads)]) -> None: ...

    body = request(b'{"item": {"name": "a"}, "user": {"name": "u"}}', JSON)
    assert await values_of(endpoint, body) == {"item": Item(name="a"), "name": "u"}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"", JSON, ("missing", ("body",))),
        (b"{", JSON, ("json_invalid", ("body", 1))),
        (b"[]", JSON, ("model_attributes_type", ("body",))),
        (b'{"price": "x", "name": 1}', JSON, ("string_type", ("body", "name"))),
        (b'{"name": "a"}', [("content-type", "text/plain")], ("model_attributes_type", ("body",))),
        (b'{"name": "a"}', [], ("model_attributes_type", ("body",))),
    ],
)
async def test_a_bad_body_is_reported_as_in_fastapi(body: bytes, headers: Any, expected: Any) -> None:
    async def endpoint(item: Item) -> None: ...

    with pytest.raises(ParameterErrors) as caught:
        await values_of(endpoint, request(body, headers))
    first = caught.value.errors()[0]
    assert (first["type"], first["loc"]) == expected


async def test_a_body_that_is_no_text_is_a_400() -> None:
    async def endpoint(item: Item) -> None: ...

    with pytest.raises(HTTPException) as caught:
        await values_of(endpoint, request(b'{"name": "\xff"}', JSON))
    assert caught.value.status_code == 400


async def test_a_form_is_read_by_key_and_empty_fields_are_absent() -> None:
    async def endpoint(
        a: Annotated[int, Form()], tags: Annotated[list[str], Form()], b: Annotated[str, fastapi.Form()] = "d"
    ) -> None: ...

    values = await values_of(endpoint, request(b"a=1&tags=x&tags=y&b=", FORM))
    assert values == {"a": 1, "tags": ["x", "y"], "b": "d"}
    with pytest.raises(ParameterErrors) as caught:
        await values_of(endpoint, request(b"a=x", FORM))
    assert [error["loc"] for error in caught.value.errors()] == [("body", "a"), ("body", "tags")]


def test_a_body_cannot_be_a_form_and_json_at_once() -> None:
    async def endpoint(a: Annotated[int, Form()], item: Item) -> None: ...

    with pytest.raises(ParameterDeclarationError, match="both a form and JSON"):
        analyze(endpoint, path="/", kind=Kind.HTTP)


async def one_file(photo: UploadFile) -> None: ...
async def files(photo: list[UploadFile]) -> None: ...
async def content(photo: bytes = File()) -> None: ...
async def content_for_fastapi(photo: Annotated[bytes, fastapi.File()]) -> None: ...


@pytest.mark.parametrize("endpoint", [one_file, files, content, content_for_fastapi])
def test_a_websocket_has_no_files(endpoint: Callable[..., Any]) -> None:
    with pytest.raises(RegistrationError, match=r"'photo' .* would be read from a body, and a WebSocket has none"):
        analyze(endpoint, path="/")


class Version(NamedTuple):
    """A named tuple that pydantic reads field by field, as FastAPI does."""

    major: int
    minor: int


async def test_a_position_is_read_from_its_text() -> None:
    async def plain(since: Position | None = None) -> None: ...
    async def marked(since: Annotated[Position, Query()]) -> None: ...
    async def in_path(since: Position) -> None: ...
    async def several(since: Annotated[list[Position], Query()]) -> None: ...
    async def fields(version: Annotated[Version, Query()]) -> None: ...

    query = [("since", "42-e-1")]
    assert await values_of(plain) == {"since": None}
    assert await values_of(plain, websocket(query)) == {"since": Position(42, "e-1")}
    assert await values_of(marked, websocket(query)) == {"since": Position(42, "e-1")}
    assert await values_of(in_path, websocket(path={"since": "1-x"}), path="/{since}") == {"since": Position(1, "x")}
    assert await values_of(several, websocket([*query, ("since", "1-x")])) == {
        "since": [Position(42, "e-1"), Position(1, "x")]
    }
    assert await values_of(fields, websocket([("version", "1"), ("version", "2")])) == {"version": Version(1, 2)}


@pytest.mark.parametrize("text", ["", "42", "x-e", "-1-e", "4.2-e"])
async def test_text_that_is_no_position_fails_validation(text: str) -> None:
    async def endpoint(since: Position | None = None) -> None: ...

    with pytest.raises(ParameterErrors) as caught:
        await values_of(endpoint, websocket([("since", text)]))
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("value_error", ("query", "since"))
    assert "not a position" in error["msg"]


def test_a_position_in_a_model_is_read_from_text_and_from_json() -> None:
    adapter = TypeAdapter(Position)
    for given in ('"42-e"', '[42, "e"]', '{"offset": 42, "epoch": "e"}'):
        assert adapter.validate_json(given) == Position(42, "e")
    assert adapter.validate_python(Position(42, "e")) == Position(42, "e")
    assert adapter.dump_json(Position(42, "e")) == b'[42,"e"]'


# ---- running a plan


async def test_errors_are_gathered_from_everywhere_and_keep_dependencies_from_running() -> None:
    ran: list[str] = []

    def broken(q: int) -> None:
        ran.append("broken")

    def above(a: Annotated[None, Depends(broken)], x: Annotated[int, Header()]) -> None:
        ran.append("above")

    def healthy() -> None:
        ran.append("healthy")

    async def endpoint(
        item: int,
        a: Annotated[None, Depends(above)],
        b: Annotated[None, Depends(broken)],
        c: Annotated[None, Depends(healthy)],
        s: Annotated[str, Cookie()],
    ) -> None: ...

    with pytest.raises(ParameterErrors) as caught:
        await values_of(endpoint, websocket(path={"item": "x"}), path="/{item}")
    found = [(error["type"], error["loc"]) for error in caught.value.errors()]
    assert found == [
        ("missing", ("query", "q")),
        ("missing", ("header", "x")),
        ("int_parsing", ("path", "item")),
        ("missing", ("cookie", "s")),
    ]
    assert ran == ["healthy"]
    assert "endpoint" in str(caught.value)
    assert "query.q: Field required" in str(caught.value)


async def test_one_plan_serves_many_connections_at_once() -> None:
    async def slow(q: int) -> int:
        await asyncio.sleep(0)
        return q

    async def endpoint(a: Annotated[int, Depends(slow)], q: int) -> None: ...

    plan = analyze(endpoint, path="/")

    async def connect(number: int) -> bool:
        solved = solve(plan, websocket([("q", str(number))]))
        async with solved:
            await asyncio.sleep(0)
        return solved.values == {"a": number, "q": number}

    assert all(await asyncio.gather(*(connect(number) for number in range(50))))


async def test_an_endpoint_that_takes_only_the_connection_costs_next_to_nothing() -> None:
    async def endpoint(websocket: WebSocket) -> None: ...

    plan = analyze(endpoint, path="/")
    assert plan.connection_only == "websocket"
    assert [injection.what for injection in plan.endpoint.injections] == [Injected.CONNECTION]
    connection = WebSocket(scope(Kind.WEBSOCKET), no_receive, no_send)

    async def once() -> float:
        start = timeit.default_timer()
        for _ in range(1000):
            solved = solve(plan, connection)
            async with solved:
                pass
            assert solved.values["websocket"] is connection
        return (timeit.default_timer() - start) / 1000

    assert min([await once() for _ in range(10)]) < 5e-6
