"""Impossible declarations are refused where they are written, by name."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from antiphon import (
    APIRouter,
    App,
    Caller,
    Channel,
    ChannelOptions,
    Depends,
    MessageError,
    MessageRouter,
    Path,
    RegistrationError,
    RegistrationWarning,
    Topic,
    Topics,
    WebSocket,
    Wire,
)
from antiphon.messages.shape import AnswerKind
from antiphon.routing.channel import ChannelRoute
from antiphon.routing.include import flatten
from antiphon.testing import Server

T = TypeVar("T")


class Rows(RootModel[list[int]]): ...


class Muted(MessageError): ...


class Say(BaseModel):
    text: str


class HTTPError(BaseModel): ...


class Reply(BaseModel): ...


class Clash(BaseModel):
    type: str


class Referring(BaseModel):
    ref: int


class Aliased(BaseModel):
    kind: Literal["aliased"] = Field(alias="type")


class Two(BaseModel):
    type: Literal["one", "two"]


class Page(BaseModel, Generic[T]):
    items: list[T]


class Player:
    pass


@dataclass
class Move:
    x: int


class Named(TypedDict):
    name: str


class Tagged(TypedDict):
    type: Literal["tagged"]


class Unvalidated:
    pass


def channel(options: ChannelOptions | None = None) -> Channel:
    return App().add_channel("/{room}", options=options)


async def _say(message: Say) -> None: ...
async def _say_too(message: Say) -> None: ...
async def _no_message() -> None: ...
async def _two(message: Say, other: Move) -> None: ...
async def _optional(message: Say | None) -> None: ...
async def _default(message: Say = Say(text="x")) -> None: ...  # noqa: B008
async def _reply(message: Reply) -> None: ...
async def _clash(message: Clash) -> None: ...
async def _ref(message: Referring) -> None: ...
async def _generic(message: Page[Say]) -> None: ...
async def _numbers(message: list[int]) -> None: ...
async def _unknown(message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def _unvalidated(message: Say, other: Unvalidated) -> None: ...
async def _returns(message: Say) -> Unvalidated: ...  # type: ignore[empty-body]
def _sync_stream(message: Say) -> Iterator[int]:
    yield 1


async def _sends_clash(message: Say, caller: Caller[Clash]) -> None: ...
async def _sends_generic(message: Say, caller: Caller[Page[Say]]) -> None: ...
async def _sends_untagged(message: Say, caller: Caller[Named]) -> None: ...
async def _sends_reserved(message: Say, caller: Caller[Reply]) -> None: ...
async def _sends_numbers(message: Say, caller: Caller[int]) -> None: ...
async def _two_tags(message: Two) -> None: ...
async def _rows(message: Rows) -> None: ...
async def _sends_rows(message: Say, caller: Caller[Rows]) -> None: ...
async def _stream_of_nothing(message: Say) -> int:  # type: ignore[misc]
    yield 1


def _session_of() -> int: ...  # type: ignore[empty-body]
async def _session(message: Say, session: int = Depends(_session_of, scope="session")) -> None: ...  # type: ignore[arg-type]
async def _player(message: Say, player: Player) -> None: ...


REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (_no_message, {}, "has no message"),
    (_two, {}, "'message' and 'other' would both be the message"),
    (_optional, {}, "never None"),
    (_default, {}, "takes no default"),
    (_reply, {}, "'reply' is one of the reserved tags"),
    (_clash, {}, "the field 'type' of Clash is not its tag"),
    (_ref, {}, "the field 'ref' of Referring"),
    (_generic, {}, "is generic, so its name is no tag"),
    (_numbers, {}, "is no class of messages"),
    (_numbers, {"tag": "numbers"}, "is no object"),
    (_unknown, {}, "unknown annotation 'Nowhere'"),
    (_unvalidated, {}, "parameter 'other'"),
    (_returns, {}, "what it returns"),
    (_sync_stream, {}, "generator without `async`"),
    (_sends_clash, {}, "field 'type' that is not its tag"),
    (_sends_generic, {}, "is generic, so its name is no tag"),
    (_sends_untagged, {}, "TypedDict"),
    (_sends_reserved, {}, "reserved"),
    (_sends_numbers, {}, "int is no class of messages"),
    (_two_tags, {"tag": "three"}, "is never 'three'"),
    (_say, {"tag": "error"}, "reserved"),
    (_say, {"tag": ""}, "printable characters"),
    (_say, {"errors": [ValueError]}, "subclasses of MessageError"),
    (_say, {"concurrent": 0}, "concurrent is a number of 1 or more"),
    (_say, {"timeout": -1}, "timeout is a positive number"),
    (_player, {}, "parameter 'player'"),
    (_rows, {}, "Rows is no object"),
    (_rows, {"tag": "rows"}, "Rows is no object"),
    (_sends_rows, {}, "Rows is no object"),
    (_stream_of_nothing, {}, "async generator, so it returns an AsyncIterator"),
    (_session, {}, "the scope 'session', which is none of \"function\""),
    (_say, {"timeout": float("nan")}, "timeout is a positive number"),
]


@pytest.mark.parametrize(("handler", "said", "why"), REFUSED)
def test_a_handler_that_can_never_work_is_refused(handler: Callable[..., Any], said: dict[str, Any], why: str) -> None:
    chat = channel()
    with pytest.raises(RegistrationError, match=why) as caught:
        chat.on(said.pop("tag", None), **said)(handler)
    assert handler.__name__ in str(caught.value)
    chat.on("fine")(_no_message)


def test_an_error_that_stands_alone_is_no_list_of_them() -> None:
    with pytest.raises(RegistrationError, match=r"errors= takes a list of subclasses of MessageError, not <class"):
        channel().on("say", errors=Muted)  # type: ignore[call-overload]


def test_one_tag_has_one_handler() -> None:
    chat = channel()
    chat.on(_say)
    with pytest.raises(RegistrationError, match=r"_say_too: messages of the tag 'say' are handled by .*_say already"):
        chat.on(_say_too)
    with pytest.raises(RegistrationError, match="handled by"):
        chat.on("say")(_no_message)
    chat.fallback(fallback)
    with pytest.raises(RegistrationError, match="fallback"):
        chat.fallback(fallback)


async def fallback(message: dict[str, Any]) -> None: ...


class Incomplete(BaseModel):
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_class_whose_annotations_cannot_be_resolved_is_refused() -> None:
    async def take(message: Any) -> None: ...

    take.__annotations__["message"] = Incomplete
    with pytest.raises(RegistrationError, match=r"take: parameter 'message'.*Nowhere"):
        channel().on(take)


def test_one_tag_is_sent_for_one_class() -> None:
    chat = channel()
    other = type("Say", (BaseModel,), {"__module__": "elsewhere"})

    async def sends(message: Move, caller: Any) -> None: ...

    sends.__annotations__["caller"] = Caller[other]  # type: ignore[valid-type]
    chat.on(_http)
    with pytest.raises(RegistrationError, match=r"would both be sent as 'say'"):
        chat.on(sends)


def test_connection_functions_that_can_never_work_are_refused() -> None:
    app = App()

    def generator(websocket: WebSocket) -> Iterator[None]:
        yield

    async def scalar(websocket: WebSocket) -> AsyncIterator[str]:
        yield "ann"

    async def body(websocket: WebSocket, message: Say) -> AsyncIterator[None]:
        yield

    for function, why in ((generator, "without `async`"), (scalar, "yields"), (body, "WebSocket has none")):
        with pytest.raises(RegistrationError, match=why):
            app.channel("/x")(function)
    with pytest.raises(RegistrationError, match="needs a path"):
        app.channel(generator)  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="ChannelOptions"):
        app.add_channel("/x", options={"concurrent": 2})  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="int is no class of messages"):
        app.add_channel("/x", sends=int)


def test_what_a_group_says_holds_in_every_channel_that_includes_it() -> None:
    chat, editing = channel(), MessageRouter(prefix="doc.")
    editing.on(_say)
    chat.include(editing)
    chat.on(_say_too)
    with pytest.raises(RegistrationError, match=r"doc\.say"):
        editing.on("say")(_no_message)
    with pytest.raises(RegistrationError, match="says the whole tag"):
        editing.on(_two_tags)
    with pytest.raises(RegistrationError, match="include itself"):
        editing.include(editing)
    with pytest.raises(TypeError):
        chat.include(chat)  # type: ignore[arg-type]


async def _many(message: Move | Tagged | Two | Aliased) -> None: ...
async def _http(message: HTTPError) -> Say: ...  # type: ignore[empty-body]
async def _page(message: Page[Say]) -> Page[Say]: ...  # type: ignore[empty-body]
async def _stream(message: Annotated[Say, "note"]) -> AsyncIterator[int]:
    yield 1


def test_tags_come_from_the_decorator_then_a_literal_then_the_class() -> None:
    app = App()
    chat = app.add_channel("/", sends=Tagged)
    chat.on(_many)
    chat.on("page")(_page)
    chat.on(_http)
    chat.on(_stream)
    route = next(route for route in app.routes if isinstance(route, ChannelRoute))
    shape = route.shape
    assert [[one.tag for one in handler.messages] for handler in shape.handlers] == [
        ["move", "tagged", "one", "two", "aliased"],
        ["page"],
        ["http_error"],
        ["say"],
    ]
    kinds = [handler.answer for handler in shape.handlers]
    assert kinds == [AnswerKind.ACK, AnswerKind.VALUE, AnswerKind.EVENT, AnswerKind.STREAM]
    assert {one.tag for one in shape.sends} == {"tagged", "say"}


def test_a_code_of_the_channels_own_is_no_error_of_the_applications() -> None:
    with pytest.raises(RegistrationError, match="code of the channel's own"):

        class Busy(MessageError): ...


@pytest.mark.parametrize("names", [{"tag": ""}, {"tag": "a", "ref": "a"}, {"tag": "code"}, {"content": "type"}])
def test_a_wire_whose_names_clash_is_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names"):
        Wire(**names)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrent": 0}, {"streams": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"max_message_size": 0},
        {"on_invalid": "reply"}, {"on_error": "close"},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ChannelOptions(**options)


async def open_session() -> AsyncIterator[int]:
    yield 1


def test_a_generator_that_both_layers_name_without_a_scope_warns() -> None:
    app = App()

    @app.channel("/a")
    async def chat(session: int = Depends(open_session)) -> AsyncIterator[None]:
        yield

    async def shared(message: Say, session: int = Depends(open_session)) -> None: ...

    async def each(message: Move, session: int = Depends(open_session, scope="message")) -> None: ...

    async def once(message: Two, session: int = Depends(open_session, scope="connection")) -> None: ...

    with pytest.warns(RegistrationWarning, match=r"shared depends on open_session, and so does the connection"):
        chat.on(shared)
    chat.on(each)
    chat.on(once)


def test_a_number_of_streams_is_not_the_handlers() -> None:
    async def numbers(message: Say) -> AsyncIterator[int]:
        yield 1

    with pytest.warns(RegistrationWarning, match=r"numbers is a stream, for which concurrent= does nothing"):
        channel().on(concurrent=2)(numbers)


def test_a_dependency_of_a_message_has_no_place_in_a_connection() -> None:
    app = App()
    with pytest.raises(RegistrationError, match='scope "message"'):

        @app.websocket("/ws")
        async def endpoint(websocket: WebSocket, session: int = Depends(open_session, scope="message")) -> None: ...

    with pytest.raises(RegistrationError, match='scope "message"'):

        @app.channel("/x")
        async def chat(session: int = Depends(open_session, scope="message")) -> AsyncIterator[None]:
            yield


def test_handlers_stay_what_they_are() -> None:
    chat = channel()
    assert chat.on(_say) is _say
    assert chat.on("other")(_no_message) is _no_message


def test_a_caller_of_nothing_is_told_and_one_of_anything_is_not(recwarn: pytest.WarningsRecorder) -> None:
    async def bare(caller: Caller) -> None: ...  # type: ignore[type-arg]
    async def meant(caller: Caller[Any]) -> None: ...

    with pytest.warns(RegistrationWarning, match=r"bare: parameter 'caller' is a Caller that names nothing"):
        channel().on("bare")(bare)
    channel().on("meant")(meant)
    assert not recwarn


def test_a_path_parameter_without_a_placeholder_is_told_also_of_channels() -> None:
    app = App()
    with pytest.warns(RegistrationWarning, match=r"room: parameter 'tea' is read from the path, and '/x' has no {tea}"):

        @app.channel("/x")
        async def room(websocket: WebSocket, tea: Annotated[str, Path()]) -> AsyncIterator[None]:
            yield

    den = app.add_channel("/den")

    @den.on("say")
    async def say(tea: Annotated[str, Path()]) -> None: ...

    with pytest.warns(RegistrationWarning, match=r"say: parameter 'tea' is read from the path, and '/den' has no"):
        next(route for route in app.routes if isinstance(route, ChannelRoute) and route.channel is den).program()


def test_a_path_parameter_may_be_in_the_prefix_of_a_router() -> None:
    router = APIRouter()

    @router.channel("/x")
    async def room(websocket: WebSocket, tea: Annotated[str, Path()]) -> AsyncIterator[None]:
        yield

    app = App()
    app.include_router(router, prefix="/{tea}")
    next(route for route in flatten(app.routes) if isinstance(route, ChannelRoute)).program()


def test_a_parameter_that_is_always_its_default_is_told() -> None:
    with pytest.warns(RegistrationWarning, match=r"room: parameter 'pages' .*so it always has its default"):

        @App().channel("/x")
        async def room(websocket: WebSocket, pages: list[int] | None = None) -> AsyncIterator[None]:
            yield


class Renamed(BaseModel):
    name: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


def test_a_topic_of_classes_that_its_topics_do_not_carry_is_told() -> None:
    moves = Topics("moves", Say | Renamed)
    for kind in (Topic[Say], Topic[Renamed], Topic[Say | Renamed], Topic[Any]):
        _takes(kind, moves)
    with pytest.warns(
        RegistrationWarning, match=r"a Topic of Strict, which Topics\('moves', Say \| Renamed\) does not"
    ):
        _takes(Topic[Say | Strict], moves)


def _takes(kind: Any, topics: Any) -> None:
    async def handle(message: Strict, topic: Any) -> None: ...

    handle.__annotations__["topic"] = Annotated[kind, Depends(topics)]
    App().add_channel("/").on(handle)


async def test_the_log_names_the_handler_whose_parameter_a_client_left_out(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    async def user(token: str) -> str:
        return token

    @app.channel("/{room}")
    async def chat(websocket: WebSocket, room: int) -> AsyncIterator[None]:
        yield

    @chat.on("say")
    async def say(text: str, room: int, user: str = Depends(user)) -> None: ...

    with caplog.at_level(logging.INFO, "antiphon"):
        async with Server(app) as server, server.connect("/tea") as peer:
            assert await peer.wait_closed() == 1008
    (line,) = [record.getMessage() for record in caplog.records if "invalid parameters" in record.getMessage()]
    here = f"{__name__}.{test_the_log_names_the_handler_whose_parameter_a_client_left_out.__name__}.<locals>"
    assert f"query.text: Field required (for {here}.say); path.room: Input should be a valid integer" in line
    assert f"query.token: Field required (for {here}.user);" in line


def test_five_hundred_messages_are_registered_in_a_moment() -> None:
    import time

    models = [type(f"Message{number}", (BaseModel,), {"__annotations__": {"text": "str"}}) for number in range(500)]
    app = App()
    chat = app.add_channel("/")

    def handler(model: Any) -> Callable[..., Any]:
        async def handle(message: Any) -> int:
            return 1

        handle.__annotations__["message"] = model
        return handle

    started = time.process_time()
    for model in models:
        chat.on(handler(model))
    next(route for route in app.routes if isinstance(route, ChannelRoute)).program()
    assert time.process_time() - started < 1.0 * 3  # thrice the promise: the machine may be slow


def test_the_class_of_a_message_in_place_of_its_handler_is_refused() -> None:
    chat = App().add_channel("/chat")
    with pytest.raises(RegistrationError, match=r"not the class Say: .* names it, `message: Say`"):
        chat.on(Say)


class Pair(NamedTuple):
    left: int


async def _pair(message: Pair) -> None: ...


@pytest.mark.parametrize("handler", [_pair, _numbers])
def test_what_is_no_object_on_the_wire_is_no_class_of_messages(handler: Any) -> None:
    with pytest.raises(RegistrationError, match="is no class of messages: a model, a dataclass or a TypedDict"):
        channel().on(handler)


@pytest.mark.parametrize("kinds", [[Say], Say(text="x"), (Say, Move)])
def test_topics_take_classes_alone(kinds: Any) -> None:
    with pytest.raises(RegistrationError, match="a message is a pydantic model, a dataclass or a TypedDict, and not"):
        Topics("room/{room}", kinds)


def test_a_context_manager_in_place_of_a_generator_is_refused() -> None:
    """It would fail for each connection, with words of Python's."""

    @asynccontextmanager
    async def managed(websocket: WebSocket) -> AsyncIterator[None]:
        yield

    async def endpoint(websocket: WebSocket) -> None: ...

    for register in (
        lambda: App().channel("/")(managed),
        lambda: App().add_api_websocket_route("/", endpoint, dependencies=[Depends(managed)]),
    ):
        with pytest.raises(RegistrationError, match=r"managed is a context manager: a function with `yield` goes"):
            register()


def test_a_group_of_handlers_is_no_router() -> None:
    with pytest.raises(TypeError, match=r"chat.include\(router\)"):
        App().include_router(MessageRouter("doc."))  # type: ignore[arg-type]
