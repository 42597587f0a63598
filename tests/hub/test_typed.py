"""Typed topics: declared messages go in and come out, as declared, and nothing else does."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import gc
import json
import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar, assert_type

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from antiphon import App, Depends, Topic, Topics, WebSocket
from antiphon.exceptions import RegistrationError, RegistrationWarning, UndeclaredMessage
from antiphon.hub import (
    Framing,
    History,
    Hub,
    HubError,
    InvalidTopic,
    Message,
    MessageKind,
    Position,
    TopicOptions,
    UndeclaredTopic,
    UnencodableData,
)
from antiphon.hub.message import resync
from antiphon.testing import Server
from antiphon.testing.hub_sinks import Connection, eventually
from antiphon.types import DECLARED_EXTENSION

T = TypeVar("T")


class Said(BaseModel):
    number: int
    text: str


class Typing(BaseModel):
    name: str


class Secret(Said):
    password: str = "hunter2"


class Hit(BaseModel):
    score: float


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclasses.dataclass
class Moved:
    x: int
    y: int = 0


class Left(TypedDict):
    type: Literal["left"]
    name: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Alarm(BaseModel):
    type: Literal[Level.LOW, Level.HIGH]


class Named(BaseModel):
    kind: Literal["renamed"] = Field(default="renamed", alias="type")
    user_name: str = Field(alias="userName")


def chat(**options: Any) -> Topics[Said | Typing]:
    return Topics("room/{room}", Said | Typing, **options)


def frames(socket: Connection) -> list[Any]:
    return [json.loads(one) for one in socket.sink.received]


# Declaring


@pytest.mark.parametrize(
    "pattern",
    ["room/{}", "room/{a b}", "room/{a}{b}", "room/{a}/{a}", "room/{a", "room/*", "room/{hub}", "room/{room:int}", 7],
)
def test_a_pattern_that_is_none_is_refused(pattern: Any) -> None:
    with pytest.raises(RegistrationError, match="Topics"):
        Topics(pattern, Said)


class Untyped(BaseModel):
    type: str


class Reply(BaseModel):
    type: Literal["reply"]


class Resync(BaseModel):
    text: str


class Untagged(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (int, "a message is a pydantic model"),
        (Said | None, "a message is a pydantic model"),
        (Untyped, "a field 'type' that is not its tag"),
        (Reply, "'reply' is one of the reserved tags"),
        (Resync, "the tag 'resync' .* has a meaning of its own"),
        (Untagged, "is a TypedDict"),
        (Page[int], "is generic"),
        (Left | Annotated[Left, "twice"] | Named | Alarm | Said, ""),
    ],
)
def test_what_can_be_no_message_is_refused_by_name(kind: Any, told: str) -> None:
    if not told:
        assert len(Topics("t", kind).messages.types) == 4
        return
    with pytest.raises(RegistrationError, match=told):
        Topics("t", kind)


def test_two_messages_of_one_tag_are_refused() -> None:
    class Other(BaseModel):
        type: Literal["said"]

    with pytest.raises(RegistrationError, match="have the same tag 'said'"):
        Topics("t", Said | Other)


@pytest.mark.parametrize(
    ("one", "other"), [("room/{a}", "room/{b}"), ("room/{a}", "room/7"), ("{a}/7", "room/{b}"), ("a-{x}", "{y}-b")]
)
def test_topics_that_have_names_in_common_are_refused(one: str, other: str) -> None:
    with pytest.raises(RegistrationError, match="names in common"):
        Hub(topics=[Topics(one, Said), Topics(other, Typing)])


@pytest.mark.parametrize(("one", "other"), [("room/{a}", "room/{b}/log"), ("a-{x}", "b-{x}"), ("{x}.a", "{y}.b")])
async def test_topics_that_never_meet_stand_side_by_side(one: str, other: str) -> None:
    async with Hub(topics=[Topics(one, Said), Topics(other, Typing)]):
        pass


def test_an_option_for_one_of_the_declared_topics_is_refused() -> None:
    with pytest.raises(RegistrationError, match="has its options"):
        Hub(topics=[chat(), {"room/lobby": TopicOptions()}])


@pytest.mark.parametrize("topics", [[Said], "room", 7, [TopicOptions()]])
def test_what_declares_no_topic_is_a_type_error(topics: Any) -> None:
    with pytest.raises(TypeError, match="topics: expected"):
        Hub(topics=topics)


async def test_options_beside_typed_topics_hold_for_the_others() -> None:
    rooms = chat(history=3)
    async with Hub(topics=[rooms, {"news*": TopicOptions(history=5)}]) as hub:
        assert await hub.publish("news/1", "anything") is not None
        assert await rooms(room="7").publish(Said(number=1, text="a")) is not None
        assert await hub.publish("other", "anything") is None


# Naming


@pytest.mark.parametrize("room", ["a/b", "", "\x00", "x" * 300])
def test_a_placeholder_takes_nothing_that_leads_into_another_topic(room: str) -> None:
    rooms = chat()
    hub = Hub(topics=[rooms])
    with pytest.raises(InvalidTopic):
        rooms(hub=hub, room=room)


def test_placeholders_are_given_by_name_all_of_them() -> None:
    rooms = chat()
    hub = Hub(topics=[rooms])
    assert rooms(room=7).name == "room/7"
    assert rooms(room="7").hub is hub
    with pytest.raises(TypeError, match=r"takes room=, got none"):
        rooms()
    with pytest.raises(TypeError, match=r"takes room=, got room=, floor="):
        rooms(room="7", floor="2")


def test_topics_that_no_hub_has_declared_say_so() -> None:
    with pytest.raises(HubError, match="no hub has declared"):
        chat()(room="7")
    rooms, other = chat(), Hub()
    with pytest.raises(HubError, match="no hub has declared"):
        rooms(hub=other, room="7")


def test_a_hub_that_is_gone_is_not_kept_by_its_topics() -> None:
    rooms = chat()
    hub = Hub(topics=[rooms])
    del hub
    gc.collect()
    with pytest.raises(HubError, match="no hub has declared"):
        rooms(room="7")


# Going in and out


class Wide(BaseModel):
    text: str
    more: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Said(number=1, text="é"), {"type": "said", "number": 1, "text": "é"}),
        (Secret(number=1, text="a"), {"type": "said", "number": 1, "text": "a"}),
        (Moved(1), {"type": "moved", "x": 1, "y": 0}),
        ({"type": "left", "name": "ann"}, {"type": "left", "name": "ann"}),
        (Strict(a=1), {"type": "strict", "a": 1}),
        (Named(type="renamed", userName="ann"), {"type": "renamed", "userName": "ann"}),
        (Wide(text="\ud800"), {"type": "wide", "text": "\ud800", "more": {}}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_message_is_written_as_its_class_declares_it_with_its_tag(message: Any, wire: Any) -> None:
    topics = Topics("t", Said | Typing | Moved | Left | Strict | Named | Wide, history=5)
    async with Hub(topics=[topics]) as hub:
        topic, socket = topics(hub=hub), Connection()
        async with topic.join(socket), topic.subscribe() as messages:
            await topic.publish(message)
            await eventually(lambda: frames(socket) == [wire])
            received = await anext(messages)
            (kept,) = await topic.history()
        if isinstance(message, Secret):
            message = Said(number=1, text="a")
        assert received.data == kept.data == message
        assert type(received.data) is type(message)


async def test_the_tag_comes_first_and_a_message_without_fields_is_its_tag_alone() -> None:
    class Ping(BaseModel): ...

    topics = Topics("t", Ping | Said)
    async with Hub(topics=[topics]) as hub:
        socket = Connection()
        async with topics(hub=hub).join(socket):
            await topics(hub=hub).publish(Ping())
            await topics(hub=hub).publish(Said(number=1, text="a"))
            await eventually(lambda: len(socket.sink.received) == 2)
    assert socket.sink.received == ['{"type":"ping"}', '{"type":"said","number":1,"text":"a"}']


@pytest.mark.parametrize("message", [Hit(score=1), "text", b"bytes", {"type": "said"}, {"type": []}, None, Said])
async def test_what_a_topic_does_not_declare_is_not_published(message: Any) -> None:
    rooms = chat(history=5)
    async with Hub(topics=[rooms]) as hub:
        for publish in (rooms(room="7").publish, lambda one: hub.publish("room/7", one)):
            with pytest.raises(UndeclaredMessage, match=r"expected Said \| Typing, got "):
                await publish(message)
        assert await rooms(room="7").history() == []
        assert hub.stats().published == 0


async def test_a_message_without_a_json_form_is_not_published() -> None:
    topics = Topics("t", Wide)
    async with Hub(topics=[topics]) as hub:
        for value in (object(), 10**5000):
            with pytest.raises(UnencodableData):
                await topics(hub=hub).publish(Wide(text="a", more={"a": value}))


async def test_what_does_not_fit_any_more_is_left_out_and_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Old(BaseModel):
        number: int

    options = {"history": 5}
    rooms, before = chat(**options), Topics("room/{room}", Old, **options)  # type: ignore[arg-type]
    async with Hub(topics=[before]) as old, Hub(topics=[rooms], backend=old.backend) as hub:
        await before(hub=old, room="7").publish(Old(number=1))
        await rooms(hub=hub, room="7").publish(Said(number=2, text="a"))
        with caplog.at_level(logging.WARNING, "antiphon.hub"):
            found = await rooms(hub=hub, room="7").history()
    assert [one.data for one in found] == [Said(number=2, text="a")]
    assert found.position is not None
    assert found.position.offset == 2
    assert "does not fit the types that the topic declares" in caplog.text


async def test_code_is_told_of_lost_messages_by_none() -> None:
    rooms = chat()
    async with Hub(topics=[rooms]) as hub, rooms(hub=hub, room="7").subscribe() as messages:
        hub._rooms.spread(hub._rooms.rooms["room/7"], resync("room/7"))
        hub._rooms.flush()
        message = await anext(messages)
    assert (message.kind, message.data) == (MessageKind.RESYNC, None)


async def test_events_carry_the_message_and_its_position() -> None:
    rooms = chat(history=5, framing=Framing.EVENT)
    async with Hub(topics=[rooms]):
        socket = Connection()
        async with rooms(room="7").join(socket):
            position = await rooms(room="7").publish(Typing(name="ann"))
            await eventually(lambda: len(socket.sink.received) == 2)
        assert position is not None
        event = frames(socket)[1]
    assert event["type"] == "message"
    assert (event["offset"], event["epoch"]) == position
    assert event["data"] == {"type": "typing", "name": "ann"}


async def test_the_excluded_socket_gets_nothing_and_a_joiner_what_it_missed() -> None:
    rooms = chat(history=5)
    async with Hub(topics=[rooms]) as hub:
        room, ann, bob, late = rooms(hub=hub, room="7"), Connection(), Connection(), Connection()
        async with room.join(ann), room.join(bob, presence="bob"):
            before = await room.publish(Typing(name="ann"), exclude=ann)
            await room.publish(Typing(name="bob"))
            assert await room.presence() == {"bob": ["bob"]}
            assert await room.presence_count() == 1
            async with room.join(late, since=before) as membership:
                assert membership.recovered
            await eventually(lambda: len(frames(late)) == 1)
        assert [one["name"] for one in frames(ann)] == ["bob"]
        assert [one["name"] for one in frames(bob)] == ["ann", "bob"]
        assert [one["name"] for one in frames(late)] == ["bob"]


# In endpoints

rooms = chat(history=10)
Room = Annotated[Topic[Said | Typing], Depends(rooms)]


def application() -> App:
    app = App(hub=Hub("memory://", topics=[rooms]))

    @app.websocket("/rooms/{room}")
    async def from_path(websocket: WebSocket, room: Room) -> None:
        await websocket.accept()
        async with room.join(websocket):
            await room.publish(Typing(name=room.name))
            await websocket.wait_closed()

    @app.websocket("/query")
    async def from_query(websocket: WebSocket, room: Room) -> None:
        await from_path(websocket, room)

    @app.websocket("/numbers/{room:int}")
    async def from_number(websocket: WebSocket, room: Room) -> None:
        await from_path(websocket, room)

    @app.post("/rooms/{room}")
    async def post(room: Room, text: str) -> str:
        await room.publish(Said(number=1, text=text))
        return room.name

    return app


@pytest.mark.parametrize("path", ["/rooms/7", "/query?room=7", "/numbers/7"])
async def test_a_topic_is_a_dependency_whose_placeholders_are_parameters(path: str) -> None:
    async with Server(application()) as server, server.connect(path) as client:
        assert await client.receive_json() == {"type": "typing", "name": "room/7"}


async def test_a_topic_of_an_endpoint_is_not_made_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: object, **__: object) -> None:
        raise AssertionError("a thread for what never waits")

    monkeypatch.setattr(sys.modules["antiphon.dependencies.solve"], "run_in_threadpool", no_thread)
    async with Server(application()) as server, server.connect("/rooms/7") as client:
        assert await client.receive_json() == {"type": "typing", "name": "room/7"}


async def test_the_apps_own_hub_is_meant_where_two_apps_share_a_declaration() -> None:
    async with Server(application()) as one, Server(application()) as two:
        async with one.connect("/rooms/7") as first, two.connect("/rooms/7") as second:
            assert (await first.receive_json())["name"] == (await second.receive_json())["name"] == "room/7"
            await first.receive_nothing()


async def test_a_connection_joins_only_the_topics_that_its_channel_declares() -> None:
    async with Hub(topics=[rooms]) as hub:
        room = rooms(hub=hub, room="7")
        for declared, allowed in (({Said, Typing, Hit}, True), ({Said}, False), (set(), False)):
            socket: Any = Connection()
            socket.scope = {DECLARED_EXTENSION: frozenset(declared)}
            if allowed:
                async with room.join(socket):
                    continue
            with pytest.raises(UndeclaredTopic, match=r"carries .*Typing, which its channel does not declare"):
                room.join(socket)
            with pytest.raises(UndeclaredTopic):
                hub.join("room/7", socket)


# Type checkers


async def test_type_checkers_know_what_a_topic_carries() -> None:
    """Each `type: ignore` here is a mistake that mypy has to find: it warns of those that hide nothing."""
    assert_type(rooms, Topics[Said | Typing])
    async with Hub(topics=[rooms]):
        room = rooms(room="7")
        assert_type(room, Topic[Said | Typing])
        assert_type(await room.publish(Said(number=1, text="a")), Position | None)
        with pytest.raises(UndeclaredMessage):
            await room.publish(Hit(score=1))  # type: ignore[arg-type]
        with pytest.raises(UndeclaredMessage):
            await room.publish("text")  # type: ignore[arg-type]
        assert_type(await room.history(), History[Said | Typing])
        async with room.subscribe(history=1) as messages:
            async for message in messages:
                assert_type(message, Message[Said | Typing | None])
                match message.data:
                    case Said() | Typing():
                        break
                    case None:
                        pytest.fail("nothing was lost")


def untyped_users_of_the_hub_need_no_arguments(message: Message, history: History) -> Mapping[str, Any]:
    """Compiles under mypy strict."""
    return {"data": message.data, "last": history[-1].data}


async def test_a_warning_still_tells_of_braces_in_plain_options() -> None:
    with pytest.warns(RegistrationWarning, match="Topics"):
        Hub(topics={"room/{room}": TopicOptions()})
    await asyncio.sleep(0)
