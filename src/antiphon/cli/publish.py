"""`antiphon publish`: send one message to a topic of a running hub."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click

from antiphon.exceptions import InvalidMessage
from antiphon.hub import Hub, HubError, TopicOptions
from antiphon.hub.backends import default_url
from antiphon.tagged import MessageSet

from .loading import load, locate
from .parameters import Seconds
from .problem import Problem, WrongUsage

MEMORY = "memory://"
RELAY = "relay://"


@click.command("publish", context_settings={"show_default": True})
@click.argument("hub")
@click.argument("topic")
@click.argument("data")
@click.option("--json", "kind", flag_value="json", help="DATA is JSON: checked, and sent as JSON data.")
@click.option("--text", "kind", flag_value="text", default="text", show_default=False, help="DATA is text.  [default]")
@click.option("--binary", "kind", flag_value="binary", help="DATA is sent as bytes, in a binary frame.")
@click.option("--history", type=click.IntRange(0), default=0, metavar="N", help="Messages the topic keeps (for a URL).")
@click.option("--ttl", type=Seconds(), default=300.0, metavar="SECONDS", help="How long it keeps them.")
@click.option("--prefix", default="antiphon", help="Prefix of the hub (for a URL).")
@click.option("--app-dir", default=".", metavar="DIR", help="Folder that the app's module is in.")
def command(hub: str, topic: str, data: str, kind: str, history: int, ttl: float, prefix: str, app_dir: str) -> None:
    """Publish DATA to TOPIC of the hub at URL, or of an app given as module:app ("-" reads DATA from stdin).

    \b
    antiphon publish redis://localhost:6379 room/lobby "hello from the shell"
    antiphon publish main:app prices '{"tea": 3.5}' --json
    date | antiphon publish relay:///run/app/relay clock -

    With an app, its hub's URL, prefix and topic options are used, and a topic that says what it carries (Topics) takes
    DATA as JSON that fits. Prints the message's position where the topic
    keeps a history.
    """
    payload = _payload(data, kind)
    try:
        found = _hub(hub, topic, history=history, ttl=ttl, prefix=prefix, app_dir=app_dir)
        messages = found.messages_of(topic)
        if messages is not None:
            payload = _message(payload, topic, messages)
        _check_reachable(found)
        position = asyncio.run(_publish(found, topic, payload))
    except (HubError, ValueError) as error:
        raise Problem(str(error)) from None
    if position is not None:
        click.echo(f"{position.offset} {position.epoch}")


def _payload(data: str, kind: str) -> Any:
    raw = sys.stdin.buffer.read() if data == "-" else data.encode("utf-8", "surrogateescape")
    if kind == "binary":
        return raw
    try:
        text = raw.decode()
        return json.loads(text) if kind == "json" else text.removesuffix("\n") if data == "-" else text
    except UnicodeDecodeError:
        raise Problem("DATA is not UTF-8", "--binary sends it as bytes") from None
    except ValueError as error:
        raise Problem(f"DATA is not JSON: {error}", "--text sends it as it is") from None


def _message(payload: Any, topic: str, messages: MessageSet[Any]) -> Any:
    """The payload as a message of the topic."""
    text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
    try:
        return messages.decode(text.encode() if isinstance(text, str) else text)
    except InvalidMessage as error:
        raise Problem(f"DATA does not fit {topic}, which carries {messages.names}: {error}") from None


def _hub(name: str, topic: str, *, history: int, ttl: float, prefix: str, app_dir: str) -> Hub:
    if "://" not in name and name.rpartition(":")[2].isdigit():
        raise WrongUsage(
            f"{name!r} is neither the URL of a hub nor an app", f"for example: redis://{name}, or main:app"
        )
    if "://" not in name:
        target = locate(name, app_dir)
        hub = getattr(load(target, factory=False), "hub", None)
        if not isinstance(hub, Hub):
            raise Problem(f"{target} has no hub", "App(hub=Hub(...)) gives it one")
    else:
        hub = Hub(name, prefix=prefix, topics={topic: TopicOptions(history=history, ttl=ttl)})
    return hub


def _check_reachable(hub: Hub) -> None:
    if hub.url.startswith(MEMORY):
        raise Problem(
            "a memory:// hub lives inside its server's process and cannot be reached from here",
            "a server with workers can: antiphon run --workers 2 prints the address of its relay,",
            "and antiphon publish relay://@antiphon-relay-... takes it; so can redis://",
        )
    if hub.url == RELAY and default_url() != RELAY:
        raise Problem(
            "relay:// is the relay of the server this process belongs to, and it belongs to none",
            "antiphon run --workers prints the address of its relay: antiphon publish relay://@antiphon-relay-... ...",
        )


async def _publish(hub: Hub, topic: str, data: Any) -> Any:
    async with hub:
        return await hub.publish(topic, data)
