"""`antiphon demo` serves its page and its chat, in one process or several."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.commands import ANTIPHON
from tests.patience import PATIENCE
from tests.serving import serve_process


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


async def event(client: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            found: dict[str, Any] = json.loads(await client.recv())
            if found["type"] == kind:
                return found


def person(number: int) -> str:
    return f"name=Person%20{number}"


def browser_of(secret: str) -> dict[str, str]:
    return {"Cookie": f"antiphon-demo={secret}"}


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_chat_is_one_whatever_the_number_of_workers(workers: str) -> None:
    async with serve_process("demo", "--workers", workers, command=ANTIPHON) as server:
        assert "The chat room is at http://localhost:" in server.log
        page = await asyncio.to_thread(fetch, server.http_url)
        assert "<title>antiphon</title>" in page
        clients = [await connect(f"{server.url}/ws/lobby?{person(number)}") for number in range(8)]
        try:
            for client in clients:
                await event(client, "presence_diff")
            for number, client in enumerate(clients):  # all are there: each message reaches each of them live
                await client.send(json.dumps({"type": "say", "id": f"{number:024x}", "text": f"I am {number}"}))
            for client in clients:
                heard = [(await event(client, "message"))["data"]["text"] for _ in clients]
                assert sorted(heard) == [f"I am {number}" for number in range(8)]
            counts = json.loads(await asyncio.to_thread(fetch, f"{server.http_url}/rooms?room=lobby&room=music"))
            assert counts == {"lobby": 8, "music": 0}
        finally:
            await asyncio.gather(*(client.close() for client in clients))
    assert "Traceback" not in server.log, server.log


async def test_who_a_browser_is_follows_from_its_cookie_and_cannot_be_taken_from_what_others_see() -> None:
    async with serve_process("demo", command=ANTIPHON) as server:
        address = f"{server.url}/ws/lobby?{person(1)}"

        async def id_of(secret: str | None) -> str:
            async with connect(address, additional_headers=browser_of(secret) if secret else None) as client:
                return str((await event(client, "you"))["id"])

        ada = await id_of("a secret")
        assert ada == await id_of("a secret")
        assert await id_of(ada) != ada
        assert await id_of(None) != await id_of(None)
        async with connect(address, additional_headers=browser_of("a secret")) as client:
            assert ada in (await event(client, "presence_diff"))["joins"]
        first = await asyncio.to_thread(urllib.request.urlopen, server.http_url, timeout=PATIENCE)
        again = urllib.request.Request(server.http_url, headers=browser_of("a secret"))
        second = await asyncio.to_thread(urllib.request.urlopen, again, timeout=PATIENCE)
    assert "HttpOnly" in first.headers["Set-Cookie"]
    assert second.headers["Set-Cookie"] is None


async def test_a_message_that_is_none_of_the_chats_is_answered_by_its_code_and_the_next_one_works() -> None:
    async with (
        serve_process("demo", command=ANTIPHON) as server,
        connect(f"{server.url}/ws/lobby?{person(1)}") as client,
    ):
        for message, code in (
            ("not JSON", "invalid_json"),
            ('{"type": "dance"}', "unknown_type"),
            ('{"type": "say", "id": "1", "text": "hi"}', "invalid"),
            (b"bytes", "unexpected_binary"),
        ):
            await client.send(message)
            assert (await event(client, "error"))["code"] == code
        await client.send(json.dumps({"type": "say", "id": f"{1:024x}", "text": "hi"}))
        assert (await event(client, "message"))["data"]["text"] == "hi"
    assert "Traceback" not in server.log, server.log


async def test_a_page_from_elsewhere_is_refused_whatever_it_calls_itself() -> None:
    async with serve_process("demo", command=ANTIPHON) as server:
        for origin in ("http://[", "http://]", "null", "https://evil.example", "", "http://"):
            address = f"{server.url}/ws/lobby?{person(1)}"
            async with connect(address, additional_headers={"Origin": origin}) as client:
                with pytest.raises(ConnectionClosed) as refused:
                    await client.recv()
                assert refused.value.rcvd is not None
                assert refused.value.rcvd.code == 3003
    assert "Traceback" not in server.log, server.log


async def test_behind_tls_the_cookie_never_travels_without_it() -> None:
    async with serve_process("demo", command=ANTIPHON) as server:
        behind_tls = urllib.request.Request(server.http_url, headers={"X-Forwarded-Proto": "https"})
        answer = await asyncio.to_thread(urllib.request.urlopen, behind_tls, timeout=PATIENCE)
        assert "Secure" in answer.headers["Set-Cookie"]
        answer = await asyncio.to_thread(urllib.request.urlopen, server.http_url, timeout=PATIENCE)
        assert "Secure" not in answer.headers["Set-Cookie"]


async def test_who_speaks_faster_than_the_room_allows_is_answered_at_the_pace_of_the_room() -> None:
    burst, pace = 8, 1.5  # messages; messages a second
    async with serve_process("demo", command=ANTIPHON) as server:
        async with connect(f"{server.url}/ws/lobby?{person(1)}", open_timeout=None) as client:
            await event(client, "you")
            began = time.monotonic()
            for ref in range(1, burst + 4):
                await client.send(json.dumps({"type": "say", "ref": ref, "id": f"{ref:024x}", "text": "hi"}))
            assert [(await event(client, "reply"))["ref"] for _ in range(burst + 3)] == [*range(1, burst + 4)]
            assert time.monotonic() - began > 3 / pace * 0.9


async def test_the_address_to_send_to_a_friend_is_one_that_a_friend_can_open() -> None:
    async with serve_process("demo", command=ANTIPHON) as server:
        assert "send a friend" not in server.log
        assert "To let others in: antiphon demo --host 0.0.0.0\n" in server.log
        async with connect(f"{server.url}/ws/lobby?{person(1)}") as client:
            assert (await event(client, "you"))["address"] is None
    async with serve_process("demo", "--host", "0.0.0.0", command=ANTIPHON) as server:
        (invitation,) = [line for line in server.lines if "send a friend" in line]
        address = invitation.split()[-1]
        assert "localhost" not in address
        assert address.endswith(f":{server.port}")
        async with connect(f"{server.url}/ws/lobby?{person(1)}") as client:
            assert (await event(client, "you"))["address"] == address
