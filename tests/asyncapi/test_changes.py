"""Changes that break clients are found, and no others."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.asyncapi.changes import breaking_changes
from antiphon.asyncapi.serving import document_of
from tests.asyncapi.programs import chat, torture
from tests.commands import antiphon

Document = dict[str, Any]


def document() -> Document:
    made: Document = json.loads(json.dumps(document_of(chat()).content()))
    return made


def payload(of: Document, message: str) -> Any:
    return of["channels"]["chat"]["messages"][message]["payload"]


def without(values: Any, name: str) -> None:
    del values["properties"][name]
    values["required"] = [one for one in values["required"] if one != name]


def removed_operation(of: Document, name: str, message: str) -> None:
    del of["operations"][name]
    del of["channels"]["chat"]["messages"][message]


def removed_event(of: Document, name: str) -> None:
    events = of["operations"]["chat.events"]["messages"]
    events[:] = [one for one in events if not one["$ref"].endswith(f"/{name}")]
    del of["channels"]["chat"]["messages"][name]


def renamed_channel(of: Document) -> None:
    of["channels"]["chat"]["address"] = "/room/{room}"


def query(of: Document) -> Any:
    return of["channels"]["chat"]["bindings"]["ws"]["query"]


BREAKING: dict[str, Callable[[Document], Any]] = {
    "a message of clients is gone": lambda of: removed_operation(of, "chat.say", "say.request"),
    "a message of clients needs a new field": lambda of: payload(of, "say.request")["required"].append("room"),
    "a field of clients is of another type": lambda of: payload(of, "say.request")["properties"].update(
        text={"type": "integer"}
    ),
    "a field of clients takes less": lambda of: payload(of, "say.request")["properties"]["text"].update(maxLength=5),
    "a field of an event is gone": lambda of: without(payload(of, "said"), "text"),
    "a field of an event may be missing": lambda of: payload(of, "said")["required"].remove("text"),
    "a field of an event is of another type": lambda of: payload(of, "said")["properties"].update(
        number={"type": "string"}
    ),
    "a field of an event may be null": lambda of: payload(of, "said")["properties"].update(
        number={"anyOf": [{"type": "integer"}, {"type": "null"}]}
    ),
    "an event is gone": lambda of: removed_event(of, "said"),
    "the reply is of another type": lambda of: payload(of, "say.reply")["properties"].update(data={"type": "string"}),
    "the answer is no stream any more": lambda of: of["operations"]["chat.search"]["x-antiphon"].update(answer="value"),
    "an item has lost a field": lambda of: without(of["components"]["schemas"]["Hit"], "score"),
    "the detail of an error has lost a field": lambda of: without(of["components"]["schemas"]["Muted"], "seconds"),
    "the channel is at another path": renamed_channel,
    "a parameter has to be given": lambda of: query(of)["required"].append("since"),
    "a new parameter has to be given": lambda of: (
        query(of)["properties"].update(token={"type": "string"}),
        query(of)["required"].append("token"),
    ),
    "a parameter is of another type": lambda of: query(of)["properties"].update(name={"type": "integer"}),
    "a parameter of the path takes less": lambda of: of["channels"]["chat"]["parameters"]["room"].update(
        {"x-antiphon": {"schema": {"enum": ["a", "b"]}}}
    ),
    "credentials are demanded": lambda of: of["operations"]["chat.say"].update(
        security=[{"type": "http", "scheme": "bearer"}]
    ),
    "the tag has another name": lambda of: of["channels"]["chat"]["x-antiphon"]["wire"].update(tag="action"),
    "other fields are refused": lambda of: payload(of, "say.request").update(additionalProperties=False),
    "a ref has to be given": lambda of: payload(of, "say.request")["required"].append("ref"),
}

HARMLESS: dict[str, Callable[[Document], Any]] = {
    "nothing": lambda of: None,
    "the version of the format": lambda of: of.update(asyncapi="3.1.0"),
    "texts": lambda of: (of["info"].update(title="New"), of["channels"]["chat"].update(summary="New")),
    "a new optional field of clients": lambda of: payload(of, "say.request")["properties"].update(
        to={"type": "string"}
    ),
    "a field of clients that need not be sent": lambda of: payload(of, "say.request")["required"].remove("text"),
    "a field of clients that takes more": lambda of: payload(of, "say.request")["properties"]["text"].update(
        maxLength=5000
    ),
    "a field of clients of more types": lambda of: payload(of, "say.request")["properties"].update(
        text={"type": ["string", "null"]}
    ),
    "a new field of an event": lambda of: (
        payload(of, "said")["properties"].update(at={"type": "string"}),
        payload(of, "said")["required"].append("at"),
    ),
    "an event that promises more": lambda of: payload(of, "said")["properties"]["text"].update(
        maxLength=10, enum=["a"]
    ),
    "a new event": lambda of: (
        of["channels"]["chat"]["messages"].update(left={"name": "left", "payload": {"type": "object"}}),
        of["operations"]["chat.events"]["messages"].append({"$ref": "#/channels/chat/messages/left"}),
    ),
    "a new message of clients": lambda of: (
        of["channels"]["chat"]["messages"].update({"go.request": {"name": "go", "payload": {"type": "object"}}}),
        of["operations"].update(
            {
                "chat.go": {
                    "action": "receive",
                    "channel": {"$ref": "#/channels/chat"},
                    "messages": [{"$ref": "#/channels/chat/messages/go.request"}],
                }
            }
        ),
    ),
    "a new channel": lambda of: of["channels"].update(other={"address": "/other", "messages": {}}),
    "another name of a placeholder": lambda of: of["channels"]["chat"].update(
        address="/rooms/{id}", parameters={"id": of["channels"]["chat"]["parameters"]["room"]}
    ),
    "another name of a schema": lambda of: (
        of["components"]["schemas"].update(Found=of["components"]["schemas"].pop("Hit")),
        payload(of, "search.item")["properties"].update(data={"$ref": "#/components/schemas/Found"}),
    ),
    "an optional parameter": lambda of: query(of)["properties"].update(lang={"type": "string"}),
    "examples and deprecation": lambda of: (
        payload(of, "say.request").update(deprecated=True),
        of["channels"]["chat"]["messages"]["said"].pop("examples"),
    ),
    "an ack that gets data": lambda of: (
        of["operations"]["chat.typing"]["x-antiphon"].update(answer="value"),
        payload(of, "typing.reply")["properties"].update(data={"type": "integer"}),
    ),
    "an error that does not come any more": lambda of: of["operations"]["chat.say"]["reply"]["messages"].pop(1),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_found(name: str) -> None:
    old, new = document(), document()
    BREAKING[name](new)
    assert old != new
    assert breaking_changes(old, new), name


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_none(name: str) -> None:
    old, new = document(), document()
    HARMLESS[name](new)
    assert breaking_changes(old, new) == []


def test_a_document_breaks_nothing_of_itself() -> None:
    made: Document = json.loads(json.dumps(document_of(torture()).content()))
    assert breaking_changes(made, copy.deepcopy(made)) == []


def test_a_change_says_where_and_what() -> None:
    old, new = document(), document()
    BREAKING["a message of clients needs a new field"](new)
    assert [str(one) for one in breaking_changes(old, new)] == ["/rooms/{room} say: the field room is required"]


MAIN = """\
from tests.asyncapi.programs import chat, torture
app = chat()
make = chat
number = 7
"""


async def test_the_command_line_prints_and_compares(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    root = Path(__file__).parents[2]
    printed = await antiphon("asyncapi", "main:app", "-o", "new.json", cwd=tmp_path, env={"PYTHONPATH": str(root)})
    assert (printed.code, printed.stdout) == (0, "")
    old = json.loads((tmp_path / "new.json").read_text())
    assert old == document()
    (tmp_path / "old.json").write_text(json.dumps(old))
    options: dict[str, Any] = {"cwd": tmp_path, "env": {"PYTHONPATH": str(root)}}
    same = await antiphon("asyncapi", "--factory", "main:make", "--check", "old.json", "--version", "3.1.0", **options)
    assert (same.code, same.stdout) == (0, "")
    payload(old, "said")["properties"]["gone"] = {"type": "string"}
    (tmp_path / "old.json").write_text(json.dumps(old))
    other = await antiphon("asyncapi", "main:app", "--check", "old.json", **options)
    assert (other.code, other.stdout) == (1, "/rooms/{room} said: the field gone is gone\n")
    for text, told in (
        ("nonsense", "is not JSON"),
        ("[]", "is no AsyncAPI document"),
        ("{}", "expected an AsyncAPI 3"),
    ):
        (tmp_path / "old.json").write_text(text)
        wrong = await antiphon("asyncapi", "main:app", "--check", "old.json", **options)
        assert wrong.code == 1
        assert told in wrong.stderr
    number = await antiphon("asyncapi", "main:number", **options)
    assert number.code == 1
    assert "Traceback" not in number.stderr
