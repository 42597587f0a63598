"""Documents: the parser has nothing to say of them, and each frame on the wire is exactly one of their messages."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import pytest
from pydantic import BaseModel, Field, create_model

from antiphon import (
    APIRouter,
    App,
    Depends,
    Framing,
    Hub,
    Query,
    RegistrationError,
    Topic,
    Topics,
    UndeclaredTopic,
    WebSocket,
)
from antiphon.asyncapi import VERSIONS
from antiphon.asyncapi.serving import document_of
from antiphon.routing.channel import ChannelRoute
from antiphon.testing import Server
from tests.asyncapi import programs
from tests.asyncapi.judges import complaints, judged
from tests.asyncapi.programs import Hit, Node, Said, Say, State, Typing, chat, rooms_of, torture
from tests.commands import EXAMPLES

T = TypeVar("T")


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def content(app: Any, version: str = VERSIONS[0], **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(document_of(app, **options).content(version)))
    return document


def messages(document: Mapping[str, Any], channel: str) -> dict[str, Any]:
    found: dict[str, Any] = document["channels"][channel]["messages"]
    return found


def names(operation: Mapping[str, Any], part: str = "messages") -> list[str]:
    refs = operation["reply"]["messages"] if part == "reply" else operation["messages"]
    return [one["$ref"].rpartition("/")[2] for one in refs]


def test_the_parser_and_ajv_find_nothing_in_any_version() -> None:
    apps = {"chat 3.0.0": chat(), "events 3.1.0": chat(Framing.EVENT), "empty 3.0.0": App()}
    apps |= {f"torture {version}": torture() for version in VERSIONS}
    documents = [{"name": name, "document": content(app, name.partition(" ")[2])} for name, app in apps.items()]
    results = judged(documents)
    assert complaints(documents, results) == []
    assert all(not one["diagnostics"] for one in results if one["name"].endswith("3.1.0"))


def test_the_parser_and_ajv_find_nothing_in_the_documents_of_the_examples() -> None:
    made = {path.name: runpy.run_path(str(path))["app"] for path in sorted(EXAMPLES.glob("*.py"))}
    documents: list[dict[str, Any]] = [
        {"name": name, "document": content(app, VERSIONS[-1])} for name, app in made.items()
    ]
    told = [one for one in documents if one["document"]["channels"]]  # the rest is the empty document again
    assert {one["name"] for one in told} >= {"renewed_token.py", "token_stream.py", "typed_orders.py"}
    results = judged(told)
    assert complaints(told, results) == []
    assert not any(one["diagnostics"] for one in results)


def test_each_message_has_a_title_for_generators_that_name_types_by_it() -> None:
    for channel in content(torture())["channels"].values():
        for name, message in channel["messages"].items():
            assert message["payload"].get("title") or "properties" not in message["payload"], name
    found = {name: one["payload"]["title"] for name, one in messages(content(chat()), "chat").items()}
    assert found["say.request"] == "Say"
    assert found["say.reply"] == "SayReply"
    assert found["say.error.muted"] == "SayErrorMuted"
    assert found["presence_diff"] == "PresenceDiff"


def test_a_broken_document_does_not_pass() -> None:
    """The judges are worth something."""
    document = content(chat())
    document["channels"]["chat"]["messages"]["said"]["examples"] = [{"payload": {"type": "said"}}]
    document["channels"]["chat"]["parameters"] = {}
    document["components"] = {"schemas": {"Pair": {"type": "array", "prefixItems": [{}]}}}
    document["operations"]["chat.say"]["messages"] = [{"$ref": "#/channels/chat/messages/nothing"}]
    found = "\n".join(complaints([{"name": "broken", "document": document}]))
    for word in ("prefixItems", "placeholders", "nothing"):
        assert word in found


def test_the_chat_is_told_as_its_annotations_say() -> None:
    document = content(chat())
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "Chat", "version": "1.2.3"}
    channel = document["channels"]["chat"]
    assert channel["address"] == "/rooms/{room}"
    assert channel["summary"] == "One room of the chat."
    assert channel["description"].endswith("With its history.")
    assert channel["parameters"]["room"]["x-antiphon"] == {"schema": {"type": "string"}}
    query = channel["bindings"]["ws"]["query"]
    assert query["required"] == ["name"]
    assert query["properties"]["since"]["type"] == "string"
    operations = document["operations"]
    assert set(operations) == {"chat.say", "chat.search", "chat.typing", "chat.cancel", "chat.events"}
    assert operations["chat.say"]["action"] == "receive"
    assert names(operations["chat.say"], "reply") == ["say.reply", "say.error.muted", "error"]
    assert names(operations["chat.search"], "reply") == ["search.item", "end", "error"]
    assert names(operations["chat.events"]) == ["typing", "said", "presence_diff", "resync", "error"]
    assert [operations[f"chat.{name}"]["x-antiphon"]["answer"] for name in ("say", "search", "typing")] == [
        "value",
        "stream",
        "ack",
    ]
    say = messages(document, "chat")["say.request"]
    assert list(say["payload"]["properties"]) == ["type", "ref", "text"]
    assert say["payload"]["required"] == ["type", "text"]
    assert say["summary"] == "Say something to everybody in the room."
    assert messages(document, "chat")["search.request"]["payload"]["required"] == ["type", "ref", "query"]
    assert messages(document, "chat")["typing.request"]["payload"]["deprecated"] is True
    assert messages(document, "chat")["said"]["payload"]["properties"]["type"] == {"type": "string", "const": "said"}
    error = messages(document, "chat")["say.error.muted"]["payload"]
    assert error["properties"]["code"] == {"type": "string", "const": "muted"}
    assert "detail" in error["required"]


def test_a_topic_with_events_makes_a_channel_resumable() -> None:
    document = content(chat(Framing.EVENT))
    assert document["channels"]["chat"]["x-antiphon"]["resumable"] == {"since": "room/*"}
    assert "resumable" not in content(chat())["channels"]["chat"]["x-antiphon"]
    said = messages(document, "chat")["said"]
    assert said["x-antiphon"]["framing"] == "event"
    assert said["payload"]["properties"]["data"]["properties"]["type"]["const"] == "said"


def test_schemas_have_the_names_of_their_classes_and_one_each() -> None:
    schemas = content(torture())["components"]["schemas"]
    assert {"Color", "Circle", "Square", "Page_Node_"} <= set(schemas)
    assert {name for name in schemas if name.startswith("Node")} == {"Node-Input", "Node-Output"}
    text = json.dumps(schemas)
    assert '"prefixItems"' not in text
    assert '"discriminator"' not in text


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    friends: list[Pet] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Book(BaseModel, Generic[T]):
    pages: list[T]
    by_level: dict[Level, T] = {}


def test_a_union_in_a_generic_class_has_the_name_of_its_members_and_their_tags_are_required() -> None:
    app = App()

    @app.websocket("/x", receives=Book[Pet], sends=Book[Pet])
    async def x(websocket: WebSocket) -> None: ...

    made = content(app)
    schemas = made["components"]["schemas"]
    assert set(schemas) >= {"Cat", "Dog-Input", "Dog-Output"}
    assert schemas["Cat"]["required"] == schemas["Dog-Input"]["required"] == ["kind"]
    assert {one["payload"]["title"] for one in messages(made, "x").values()} == {"Book[Cat | Dog]"}
    names = messages(made, "x")["Book_Cat_Dog_.received"]["payload"]["properties"]["by_level"]["propertyNames"]
    assert names == {"enum": ["1", "2"]}


def test_unions_that_begin_alike_have_short_names_that_differ() -> None:
    tags: list[Any] = [Literal[f"k{number}"] for number in range(40)]
    kinds = [create_model(f"K{number}", kind=(tag, ...)) for number, tag in enumerate(tags)]
    first, second = (Annotated[Union[*some], Field(discriminator="kind")] for some in (kinds[:30], kinds[:-1]))

    app = App()

    @app.websocket("/x", sends=create_model("Both", first=(Book[first], ...), second=(Book[second], ...)))  # type: ignore[valid-type]
    async def x(websocket: WebSocket) -> None: ...

    made = [name for name in content(app)["components"]["schemas"] if name.startswith("Book")]
    assert len(set(made)) == 2
    assert max(map(len, made)) < 40


def test_two_classes_of_one_name_are_told_apart_by_what_is_around_them() -> None:
    class Inner(BaseModel):
        node: programs.Outer.Say
        other: Say

    app = App()

    @app.websocket("/x", receives=Inner)
    async def x(websocket: WebSocket) -> None: ...

    assert set(content(app)["components"]["schemas"]) == {"Outer_Say", "Say"}


def test_a_field_that_is_always_sent_is_required_and_one_that_may_be_left_out_is_not() -> None:
    class Sent(BaseModel):
        at: int = 0
        rare: Annotated[int | None, Field(exclude_if=lambda value: value is None)] = None

    app = App()

    @app.websocket("/x", receives=Sent, sends=Sent)
    async def x(websocket: WebSocket) -> None: ...

    found = messages(content(app), "x")
    assert found["Sent"]["payload"]["required"] == ["at"]
    assert "required" not in found["Sent.received"]["payload"]


def test_credentials_come_from_security_dependencies() -> None:
    document = content(torture())
    schemes = document["components"]["securitySchemes"]
    assert schemes["HTTPBearer"] == {"type": "http", "scheme": "bearer", "description": "A token."}
    assert schemes["APIKeyQuery"] == {"type": "httpApiKey", "name": "key", "in": "query"}
    assert schemes["APIKeyCookie"]["in"] == "cookie"
    assert document["operations"]["torture.say"]["security"] == [{"$ref": "#/components/securitySchemes/HTTPBearer"}]
    assert "security" not in document["operations"]["feed.send"]


def test_a_parameter_that_handlers_read_too_has_the_bounds_of_whoever_has_them() -> None:
    app = App()

    @app.channel("/lots")
    async def lots(bidder: Annotated[str, Query(max_length=20)]) -> None: ...

    @lots.on("bid")
    async def bid(bidder: str) -> None: ...

    query = content(app)["channels"]["lots"]["bindings"]["ws"]["query"]
    assert query["properties"] == {"bidder": {"type": "string", "maxLength": 20}}


@pytest.mark.parametrize("path", ["/rooms/{room}", "/rooms"])
def test_a_placeholder_of_a_topic_is_of_the_type_that_somebody_else_reads(path: str) -> None:
    rooms = Topics("room/{room}", Said)
    app = App(hub=Hub(topics=[rooms]))

    @app.channel(path)
    async def chat(websocket: WebSocket, room: int, topic: Topic[Said] = Depends(rooms)) -> AsyncIterator[None]:
        yield

    told = document_of(app).content()["channels"]["chat"]
    if path == "/rooms":
        assert told["bindings"]["ws"]["query"]["properties"] == {"room": {"type": "integer"}}
    else:
        assert told["parameters"]["room"]["x-antiphon"] == {"schema": {"type": "integer"}}


def test_routes_that_tell_nothing_are_not_in_it() -> None:
    assert "silent" not in content(torture())["channels"]
    assert content(App())["channels"] == {}


def test_what_is_no_type_of_messages_is_refused_where_the_route_is_registered() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="receives= and sends= take a type of messages"):

        @app.websocket("/x", sends="State")
        async def x(websocket: WebSocket) -> None: ...


def test_included_mounted_and_later_routes_are_in_it_with_their_whole_paths() -> None:
    router, mounted, app = APIRouter(prefix="/r"), App(), App()

    @router.websocket("/{a}", sends=State)
    async def one(websocket: WebSocket, a: str) -> None: ...

    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    app.mount("/m", mounted)
    document = document_of(app, prefix="/all")
    assert {one["address"] for one in document.content()["channels"].values()} == {"/all/v1/r/{a}", "/all/v2/r/{a}"}
    assert set(document.content()["channels"]) == {"one_all_v1_r_a", "one_all_v2_r_a"}

    @mounted.channel("/late")
    async def late(websocket: WebSocket) -> None: ...

    assert document.content()["channels"]["late"]["address"] == "/all/m/late"

    @late.on
    async def say(message: Say) -> None: ...

    assert "late.say" in document.content()["operations"]
    assert document.content() == document.content()


def test_five_hundred_messages_are_described_within_seconds_and_none_before_it_is_asked_for() -> None:
    app = App()

    @app.channel("/many")
    async def many(websocket: WebSocket) -> None: ...

    for number in range(500):
        model = create_model(f"Message{number}", value=(int, ...), node=(Node, ...))

        async def handle(message: Any) -> int:
            return 1

        handle.__annotations__["message"] = model
        many.on(handle)
    document = content(app)
    assert len(document["operations"]) == 502
    assert "$defs" not in json.dumps(document)


async def test_every_frame_of_the_chat_is_exactly_one_message_of_its_operation() -> None:
    app, seen = chat(), []
    requests = [
        ("say", {"type": "say", "ref": 1, "text": "hi"}),
        ("say", {"type": "say", "ref": "b", "text": "shout"}),
        ("say", {"type": "say", "text": "without"}),
        ("search", {"type": "search", "ref": 3, "query": "x"}),
        ("typing", {"type": "typing", "ref": 4}),
        ("cancel", {"type": "cancel", "ref": 9}),
    ]
    async with Server(app) as server, server.connect("/rooms/7?name=ann") as ann:
        for operation, frame in requests:
            await ann.send_json(frame)
            seen.append({"operation": f"chat.{operation}", "side": "receive", "payload": frame})
        await ann.send('{"type":"say","ref":5,"text":""}')
        await ann.send("nonsense")
        operations = {1: "say", "b": "say", 3: "search", 4: "typing", 5: "say"}
        count = {"error": 0, "said": 0}
        while count["error"] < 3 or count["said"] < 2 or "end" not in count or count.get("reply", 0) < 2:
            frame = json.loads(await ann.receive())
            count[frame["type"]] = count.get(frame["type"], 0) + 1
            ref = frame.get("ref")
            side = "send" if ref is None else "reply"
            operation = "events" if ref is None else operations[ref]
            seen.append({"operation": f"chat.{operation}", "side": side, "payload": frame})
    assert {"reply", "item", "end", "error", "said", "presence_diff"} <= set(count)
    assert complaints([{"name": "chat", "document": content(app), "frames": seen}]) == []


async def test_every_event_with_a_position_is_exactly_one_message() -> None:
    app = chat(Framing.EVENT)
    async with Server(app) as server, server.connect("/rooms/7?name=ann") as ann:
        await ann.send_json({"type": "say", "text": "hi"})
        await ann.send_json({"type": "say", "text": "again"})
        frames = [await ann.receive_json()]
        while sum(one["type"] == "message" for one in frames) < 2:
            frames.append(await ann.receive_json())
    seen = [{"operation": "chat.events", "side": "send", "payload": one} for one in frames]
    assert {one["type"] for one in frames} >= {"joined", "message", "presence_diff"}
    assert complaints([{"name": "chat", "document": content(app), "frames": seen}]) == []


async def test_a_channel_joins_no_topic_whose_messages_it_does_not_tell_of() -> None:
    rooms = rooms_of(Framing.RAW)
    app, raised = App(hub=Hub("memory://", topics=[rooms])), []

    @app.channel("/rooms/{room}", sends=Hit)
    async def silent(websocket: WebSocket, room: str) -> AsyncIterator[None]:
        await websocket.accept()
        topic: Topic[Said | Typing] = rooms(hub=app.hub, room=room)
        with pytest.raises(UndeclaredTopic) as caught:
            topic.join(websocket)
        raised.append(caught.value)
        yield

    async with Server(app) as server, server.connect("/rooms/7") as client:
        await client.close()
    assert "Said | Typing" in str(raised[0])


class Late(BaseModel):
    text: str


def test_a_channel_is_settled_once_whichever_threads_ask() -> None:
    """A document is made in a thread, while connections come in the loop's: two shapes of a channel would not match."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            app = App()

            @app.channel("/rooms/{room}")
            async def rooms(room: int) -> None:
                """A room."""

            (route,) = (route for route in app.routes if isinstance(route, ChannelRoute))

            @rooms.on
            async def late(message: Late) -> None:
                """Whoever is next to ask settles the channel anew."""

            with ThreadPoolExecutor(4) as threads:
                programs = {id(one) for one in threads.map(lambda _, route=route: route.program(), range(8))}
            assert len(programs) == 1
            assert list(content(app)["channels"]) == ["rooms"]
    finally:
        sys.setswitchinterval(interval)
