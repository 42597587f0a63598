"""The examples about messages do as their first lines say, for a client of another library."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from antiphon.clients.runtime import Client
from tests.commands import EXAMPLES, run
from tests.patience import PATIENCE


async def test_text_is_echoed_until_bye_closes_politely() -> None:
    async with run(EXAMPLES / "text_echo.py") as server, connect(f"{server.url}/echo") as client:
        await client.send("grüße")
        assert await client.recv() == "you said: grüße"
        await client.send("bye")
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1000, "see you")


async def test_json_requests_get_answers_with_their_id() -> None:
    async with run(EXAMPLES / "json_exchange.py") as server:
        async with connect(f"{server.url}/calculate") as client:
            for number in range(3):
                await client.send(json.dumps({"id": number, "add": [number, 10]}))
                assert json.loads(await client.recv()) == {"id": number, "sum": number + 10}
        async with connect(f"{server.url}/calculate") as client:
            await client.send("not JSON")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1007


async def test_bytes_come_back_reversed_and_text_is_refused_with_1003() -> None:
    async with run(EXAMPLES / "binary_echo.py") as server:
        async with connect(f"{server.url}/reverse") as client:
            await client.send(b"\x00\x01\xff")
            assert await client.recv() == b"\xff\x01\x00"
        async with connect(f"{server.url}/reverse") as client:
            await client.send("text")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1003


async def test_raw_messages_hold_the_key_of_the_frame_that_came() -> None:
    async with run(EXAMPLES / "low_level.py") as server:
        async with connect(f"{server.url}/raw") as client:
            await client.send("abc")
            assert await client.recv() == "3 characters"
            await client.send(b"abcd")
            assert await client.recv() == "4 bytes"
            await client.close(4004)
        await server.wait_for_line("gone with 4004")


@pytest.mark.parametrize(
    ("code", "reason", "line"),
    [(1000, "", "code=1000 reason=''"), (4000, "lunch", "code=4000 reason='lunch'")],
)
async def test_an_endpoint_learns_code_and_reason_of_the_end(code: int, reason: str, line: str) -> None:
    async with run(EXAMPLES / "disconnect_details.py") as server:
        async with connect(f"{server.url}/listen") as client:
            await client.close(code, reason)
        await server.wait_for_line(f"client left: {re.escape(line)}")


async def test_a_lost_connection_is_1006_also_for_an_endpoint_that_never_receives() -> None:
    async with run(EXAMPLES / "disconnect_details.py") as server:
        listening = await connect(f"{server.url}/listen")
        feeding = await connect(f"{server.url}/feed")
        assert await feeding.recv() == "welcome"
        for client in (listening, feeding):
            client.transport.abort()
        await server.wait_for_line("client left: code=1006")
        await server.wait_for_line("feed over: code=1006 by=nobody")


async def test_json_that_means_something_else_gets_an_answer_and_no_traceback() -> None:
    async with run(EXAMPLES / "json_exchange.py") as server, connect(f"{server.url}/calculate") as client:
        for odd in ('{"x": 1}', "[1]", "7", '{"id": 1, "add": ["a"]}', '{"id": 1, "add": null}'):
            await client.send(odd)
            assert json.loads(await client.recv()) == {"error": 'expected {"id": ..., "add": [numbers]}'}
    async with run(EXAMPLES / "iterate.py") as server:
        for odd in ('{"x": 1}', "[1]", "7", '{"name": "a", "size": "b"}'):
            async with connect(f"{server.url}/upload") as client:
                await client.send(odd)
                await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1008, "expected a name and a size")


async def test_json_entries_then_binary_chunks_are_iterated() -> None:
    async with run(EXAMPLES / "iterate.py") as server, connect(f"{server.url}/upload") as client:
        await client.send(json.dumps({"name": "b.txt", "size": 3}))
        await client.send(json.dumps({"name": "a.txt", "size": 2}))
        await client.send('"go"')
        assert json.loads(await client.recv()) == {"waiting_for": ["a.txt", "b.txt"]}
        await client.send(b"12")
        assert json.loads(await client.recv()) == {"received": 2, "of": 5}
        await client.send(b"345")
        assert json.loads(await client.recv()) == {"received": 5, "of": 5}
        with pytest.raises(ConnectionClosedOK):
            await client.recv()


async def test_a_stream_pauses_and_ends_with_the_client() -> None:
    async with run(EXAMPLES / "streaming.py") as server:
        async with connect(f"{server.url}/count?to=3&pause=0.01") as client:
            assert [json.loads(message)["number"] async for message in client] == [1, 2, 3]
            assert client.close_code == 1000
        async with connect(f"{server.url}/count?to=1000&pause=0.01") as client:
            assert json.loads(await client.recv())["number"] == 1


async def test_bad_messages_get_error_replies_and_the_conversation_goes_on() -> None:
    async with run(EXAMPLES / "validated_json.py") as server, connect(f"{server.url}/orders") as client:
        await client.send("nonsense")
        assert json.loads(await client.recv())["ok"] is False
        await client.send('{"item": "tea", "amount": 0}')
        answer = json.loads(await client.recv())
        assert [error["loc"] for error in answer["errors"]] == [["amount"]]
        await client.send('{"item": "tea", "amount": 2}')
        assert json.loads(await client.recv()) == {"ok": True, "order": {"item": "tea", "amount": 2}}


async def test_a_channel_answers_orders_and_says_what_is_wrong_with_bad_ones() -> None:
    async with run(EXAMPLES / "typed_orders.py") as server, connect(f"{server.url}/orders") as client:
        await client.send("nonsense")
        assert json.loads(await client.recv())["code"] == "invalid_json"
        await client.send('{"type": "order", "ref": 1, "item": "tea", "amount": 0}')
        error = json.loads(await client.recv())
        assert (error["ref"], error["code"], error["detail"][0]["loc"]) == (1, "invalid", ["amount"])
        await client.send('{"type": "order", "ref": "b", "item": "tea", "amount": 2}')
        assert json.loads(await client.recv()) == {"type": "reply", "ref": "b", "data": {"item": "tea", "amount": 2}}


async def test_tokens_stream_until_they_are_cancelled() -> None:
    async with run(EXAMPLES / "token_stream.py") as server, connect(f"{server.url}/model") as client:
        await client.send('{"type": "ask", "ref": 1, "prompt": "a b"}')
        frames = [json.loads(await client.recv()) for _ in range(3)]
        assert [frame.get("data") for frame in frames] == ["a ", "b ", None]
        assert frames[2] == {"type": "end", "ref": 1}
        await client.send(json.dumps({"type": "ask", "ref": 2, "prompt": "word " * 100_000}))
        assert json.loads(await client.recv())["data"] == "word "
        await client.send('{"type": "cancel", "ref": 2}')
        async with asyncio.timeout(PATIENCE):
            while (frame := json.loads(await client.recv()))["type"] == "item":
                pass
        assert frame == {"type": "end", "ref": 2}
        await client.send('{"type": "ask", "ref": 3, "prompt": " "}')
        assert json.loads(await client.recv())["code"] == "nothing_asked"


@pytest.mark.parametrize(
    ("move", "code", "reason"),
    [("resign", 4000, "well played"), ("twice", 4001, "one at a time"), ("peek left", 4002, "no peek left")],
)
async def test_own_close_codes_reach_the_client_by_each_way(move: str, code: int, reason: str) -> None:
    async with run(EXAMPLES / "close_codes.py") as server, connect(f"{server.url}/game") as client:
        await client.send("e4")
        assert await client.recv() == "your turn"
        await client.send(move)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)


async def test_a_broadcast_reaches_the_others_past_clients_that_vanish_or_stop_reading() -> None:
    async with run(EXAMPLES / "broadcast_chat.py") as server:
        async with (
            connect(f"{server.url}/chat/ada", max_queue=None) as ada,
            connect(f"{server.url}/chat/bob", max_queue=None) as bob,
        ):
            gone = await connect(f"{server.url}/chat/eve")
            deaf = await connect(f"{server.url}/chat/deaf", max_queue=1)
            gone.transport.abort()
            deaf.transport.pause_reading()
            for number in range(200):
                await ada.send(f"{number} " + "x" * 10_000)
            async with asyncio.timeout(PATIENCE):
                async for message in bob:
                    if str(message).startswith("ada: 199 "):
                        break
            deaf.transport.abort()


async def test_a_connection_outlives_its_tokens_and_ends_with_the_last() -> None:
    async with run(EXAMPLES / "renewed_token.py") as server, asyncio.timeout(PATIENCE):

        def fetched() -> str:
            request = urllib.request.Request(f"{server.http_url}/token", method="POST")
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return str(response.read().decode())

        async def token() -> str:
            return await asyncio.to_thread(fetched)

        async with Client[Any](f"{server.url}/clock", token=token, token_via="query") as client:
            assert await client.request("left") > 0
            while await client.request("left") > -1:  # noqa: ASYNC110  time itself is waited for
                await asyncio.sleep(0.1)
            assert client.state.name == "open"
        async with connect(f"{server.url}/clock?token={await token()}") as client_without_function:
            assert json.loads(await client_without_function.recv())["type"] == "auth_expiring"
            await client_without_function.wait_closed()
            assert client_without_function.close_code == 3000
        async with connect(f"{server.url}/clock?token=bad") as stranger:
            await stranger.wait_closed()
            assert (stranger.close_code, stranger.close_reason) == (3000, "this token is not good")
