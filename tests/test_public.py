"""What is public is said to be public: the names of the façade are frozen here, and each says what it is."""

from __future__ import annotations

import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import antiphon

STABILITY = (Path(__file__).parent.parent / "docs" / "stability.md").read_text()

NAMES = """
APIRouter AlreadyJoined App BackendUnavailable BackgroundTasks Body Caller Channel ChannelOptions Closed ClosedBy
ConnectionOptions Cookie MessageError MessageRouter OnError UndeclaredMessage Wire
Depends File FileResponse Form Framing HTMLResponse HTTPConnection HTTPException Header History Hub HubError
HubNotRunning HubStats InvalidJSON InvalidMessage InvalidTopic JSONResponse MessageKind Membership Message
NotAccepted OnInvalid Overflow Path PeerError PlainTextResponse Position Query RedirectResponse
RegistrationError RegistrationWarning Request Response Security ServerConfig SlowSubscriber StreamingResponse
Subscription TooMuchJSON Topic TopicOptions Topics
OnOutage UndeclaredTopic UnencodableData UnencodableText UnexpectedMessageKind
UnknownBackend UploadFile WebSocket WebSocketDisconnect WebSocketDisconnected WebSocketException
WebSocketState __version__ status
"""


def test_the_names_of_the_facade_are_these_and_no_others() -> None:
    assert sorted(antiphon.__all__) == sorted(NAMES.split())


def test_a_star_import_gives_them_all() -> None:
    given: dict[str, object] = {}
    exec("from antiphon import *", given)
    assert set(antiphon.__all__) <= set(given)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert antiphon.__version__ == version("antiphon")


OURS = [
    name
    for name in sorted(antiphon.__all__)
    if getattr(getattr(antiphon, name), "__module__", "").startswith("antiphon")
]
"""Starlette's responses say nothing of themselves."""


@pytest.mark.parametrize("name", OURS)
def test_a_public_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(antiphon, name))


SHOWN = ["App", "APIRouter", "Hub", "ServerConfig", "ConnectionOptions", "TopicOptions", "WebSocket"]


@pytest.mark.parametrize("name", [*SHOWN, "ChannelOptions", "MessageRouter", "Wire"])
def test_an_editor_shows_what_a_constructor_takes(name: str) -> None:
    value = getattr(antiphon, name)
    text = f"{inspect.getdoc(value)}\n{inspect.getdoc(value.__init__)}"
    source = inspect.getsource(value)
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        named = f"`{parameter.name}" in text or re.search(rf"{parameter.name}:[^\n]*\n\s+\"\"\"", source)
        assert named or parameter.name in ("scope", "receive", "send"), f"{name}({parameter.name}=) is told nowhere"


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`(antiphon(?:\.[a-z]\w*)+)`", STABILITY))))
def test_the_modules_that_are_said_to_be_public_exist_and_say_what_they_are(module: str) -> None:
    assert importlib.import_module(module).__doc__
