"""Declarations that no request fills as they are meant: told, or refused, where they are registered."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from annotated_types import Gt, Predicate
from pydantic import AfterValidator, BaseModel

from antiphon import App, Depends, HTTPConnection, Hub, Query, Security, Topic, Topics, WebSocket
from antiphon.exceptions import ParameterDeclarationError, RegistrationError, RegistrationWarning
from antiphon.gate import HEADER, JWT, USER, Quota, Rate, Tickets, WebSocketBearer, requires
from antiphon.security import OAuth2PasswordBearer


def told(endpoint: Callable[..., Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        App().add_api_websocket_route("/ws", endpoint)
    assert all(issubclass(one.category, RegistrationWarning) for one in caught)
    return [str(one.message).replace(f"{__name__}.", "") for one in caught]


def depends() -> int:
    return 1


class Token:
    async def __call__(self) -> str:
        return ""


class Schemed:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(source)


def test_a_function_as_a_default_is_warned_of() -> None:
    async def endpoint(websocket: WebSocket, number=depends) -> None: ...  # type: ignore[no-untyped-def]

    (line,) = told(endpoint)
    assert line.endswith("parameter 'number' has depends as its default, which no request calls: Depends(depends)")


@pytest.mark.parametrize(
    ("meant", "remedy"),
    [
        (depends, "Depends(depends)"),
        (Token(), "Depends(...)"),
        (Depends, "Depends(function)"),
        (Query, "Query()"),
    ],
)
def test_a_function_in_annotated_without_depends_is_warned_of(meant: Any, remedy: str) -> None:
    """Its value would come from the query, so every client could be any user."""

    async def endpoint(websocket: WebSocket, user: str) -> None: ...

    endpoint.__annotations__["user"] = Annotated[str, meant]
    (line,) = told(endpoint)
    assert line.endswith(f" in Annotated, which no request calls: write {remedy}")
    assert "parameter 'user' has " in line


@pytest.mark.parametrize("meant", [Gt(3), AfterValidator(abs), Query(alias="n"), "a note", Schemed, Predicate(bool)])
def test_what_annotated_may_hold_is_not_warned_of(meant: Any) -> None:
    async def endpoint(websocket: WebSocket, number: int) -> None: ...

    endpoint.__annotations__["number"] = Annotated[int, meant]
    assert told(endpoint) == []


@pytest.mark.parametrize(("marker", "remedy"), [(Depends, "Depends(function)"), (Query, "Query()")])
def test_a_marker_without_parentheses_as_a_default_is_warned_of(marker: Any, remedy: str) -> None:
    async def endpoint(websocket: WebSocket, number=marker) -> None: ...  # type: ignore[no-untyped-def]

    (line,) = told(endpoint)
    assert line.endswith(f" as its default, which no request calls: {remedy}")


def test_an_object_in_place_of_the_class_is_refused() -> None:
    async def endpoint(websocket: WebSocket, given: Hub) -> None: ...

    endpoint.__annotations__["given"] = Hub()
    with pytest.raises(RegistrationError, match="annotated with an object: the class is meant, `hub: Hub`"):
        App().add_api_websocket_route("/ws", endpoint)


def test_a_hub_of_ones_own_as_a_default_is_refused() -> None:
    async def endpoint(websocket: WebSocket, hub=Hub()) -> None: ...  # type: ignore[no-untyped-def]  # noqa: B008

    with pytest.raises(ParameterDeclarationError, match="'hub' has a Hub as its default: annotate it, `hub: Hub`"):
        App().add_api_websocket_route("/ws", endpoint)


class Said(BaseModel):
    text: str


class Typing(BaseModel):
    name: str


def test_a_topic_of_a_class_that_its_topics_do_not_carry_is_warned_of() -> None:
    rooms = Topics("rooms", Said)

    async def endpoint(websocket: WebSocket, room: Any) -> None: ...

    endpoint.__annotations__["room"] = Annotated[Topic[Said | Typing], Depends(rooms)]
    (line,) = told(endpoint)
    assert line.endswith("parameter 'room' is a Topic of Typing, which Topics('rooms', Said) does not declare")
    endpoint.__annotations__["room"] = Annotated[Topic[Said], Depends(rooms)]
    assert told(endpoint) == []


def test_depends_alone_needs_an_annotation_to_call() -> None:
    async def endpoint(websocket: WebSocket, user=Depends()) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(ParameterDeclarationError, match=r"the parameter has none: write Depends\(function\)"):
        App().add_api_websocket_route("/ws", endpoint)


def test_what_is_in_the_path_is_not_read_from_elsewhere() -> None:
    async def endpoint(websocket: WebSocket, room: Annotated[str, Query()]) -> None: ...

    with pytest.raises(ParameterDeclarationError, match=r"is in the path and cannot be read with Query\("):
        App().add_api_websocket_route("/{room}", endpoint)


def schemes() -> list[Any]:
    key = "k" * 32
    made = (
        JWT(key, algorithms=["HS256"]),
        Tickets(Hub()),
        WebSocketBearer([HEADER]),
        OAuth2PasswordBearer(tokenUrl="t"),
    )
    return [*made, Quota(connections_per_user=1), Rate("1/second", per=USER), requires("orders")]


@pytest.mark.parametrize("scheme", schemes(), ids=lambda scheme: type(scheme).__name__)
def test_a_scheme_as_a_default_is_warned_of(scheme: Any) -> None:
    """Nothing would call it, so everybody would come in."""

    async def endpoint(websocket: WebSocket, user=scheme) -> None: ...  # type: ignore[no-untyped-def]

    (line,) = told(endpoint)
    assert line.endswith(" as its default, which no request calls: Depends(...)")


@pytest.mark.parametrize("scheme", [JWT, Tickets, WebSocketBearer, Quota, Rate, requires])
@pytest.mark.parametrize("register", ["add_api_websocket_route", "add_api_route"])
def test_a_class_in_depends_whose_objects_are_the_dependency_is_refused(register: str, scheme: type) -> None:
    """A new object for each connection would be called by nobody, so everybody would come in."""

    async def endpoint(connection: HTTPConnection) -> None: ...

    with pytest.raises(RegistrationError, match=rf"^Depends\({scheme.__name__}\) makes a .* so it checks nobody"):
        getattr(App(), register)("/ws", endpoint, dependencies=[Depends(scheme)])


def test_the_method_of_a_class_is_refused_and_that_of_an_object_serves() -> None:
    class Chat:
        async def enter(self, websocket: WebSocket) -> None: ...

    with pytest.raises(
        ParameterDeclarationError, match=r"'self' is a method's, .* app.websocket\(path\)\(object.method"
    ):
        App().websocket("/ws")(Chat.enter)
    assert told(Chat().enter) == []


def test_a_topic_without_its_topics_is_refused() -> None:
    async def endpoint(websocket: WebSocket, topic) -> None: ...  # type: ignore[no-untyped-def]

    for annotation in (Topic, Topic[Any]):
        endpoint.__annotations__["topic"] = annotation
        with pytest.raises(ParameterDeclarationError, match=r"'topic' is a Topic, .* `topic: Topic\[...\] = Depends"):
            App().websocket("/ws")(endpoint)


def test_scopes_in_one_str_are_refused() -> None:
    """Its letters would be the scopes, which no token has."""
    with pytest.raises(TypeError, match=r"write scopes=\['orders:read', 'orders:write'\]"):
        Security(depends, scopes="orders:read orders:write")
