"""The examples about admission and credentials do as their first lines say."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.commands import EXAMPLES, run
from tests.patience import PATIENCE


def get(url: str) -> object:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


async def test_a_subprotocol_is_chosen_and_headers_go_both_ways() -> None:
    offered = [Subprotocol("metric.v2"), Subprotocol("metric.v1")]
    async with run(EXAMPLES / "headers_and_subprotocols.py") as server:
        async with connect(
            f"{server.url}/measure", subprotocols=offered, additional_headers={"X-Unit": "km"}
        ) as client:
            assert await client.recv() == "speaking metric.v2 in km"
            assert client.subprotocol == "metric.v2"
            assert client.response is not None
            assert client.response.headers["x-unit"] == "km"
        async with connect(f"{server.url}/measure") as client:
            assert await client.recv() == "speaking nothing in particular in m"


async def test_a_token_in_the_query_opens_and_a_missing_one_denies_or_closes_with_1008() -> None:
    async with run(EXAMPLES / "token_query.py") as server:
        async with connect(f"{server.url}/private?token=sesame") as client:
            assert await client.recv() == "come in"
        for query in ("", "?token=wrong", "?token=%C3%A9"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{server.url}/private{query}")
            assert refused.value.response.status_code == 403
            assert json.loads(refused.value.response.body or b"")["code"] == 1008
        async with connect(f"{server.url}/polite") as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (1008, "a good token, please")


async def test_a_bearer_token_is_asked_for_checked_and_used() -> None:
    async with run(EXAMPLES / "bearer.py") as server:
        async with connect(f"{server.url}/me", additional_headers={"Authorization": "Bearer ada-secret"}) as client:
            assert await client.recv() == "hello Ada"
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/me")
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["www-authenticate"] == "Bearer"
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/me", additional_headers={"Authorization": "Bearer stolen"})
        assert refused.value.response.status_code == 403


async def test_path_parameters_are_typed_and_a_wrong_one_denies_with_its_errors() -> None:
    async with run(EXAMPLES / "path_parameters.py") as server:
        async with connect(f"{server.url}/orders/7/files/2026/invoice.pdf") as client:
            assert json.loads(await client.recv()) == {"order": 7, "name": "2026/invoice.pdf"}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/orders/none/files/a")
        assert refused.value.response.status_code == 403
        assert b"order" in (refused.value.response.body or b"")


async def test_query_parameters_are_typed_bounded_and_repeated() -> None:
    async with run(EXAMPLES / "query_parameters.py") as server:
        async with connect(f"{server.url}/search?q=tea&tag=green&tag=hot&limit=5") as client:
            assert json.loads(await client.recv()) == {"q": "tea", "tags": ["green", "hot"], "limit": 5}
        async with connect(f"{server.url}/search?q=tea") as client:
            assert json.loads(await client.recv()) == {"q": "tea", "tags": [], "limit": 10}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/search?q=t&limit=1000")
        body = refused.value.response.body or b""
        assert b"limit" in body
        assert b'"q"' in body


async def test_one_dependency_serves_http_and_websocket_routes() -> None:
    async with run(EXAMPLES / "one_dependency.py") as server:
        assert await asyncio.to_thread(get, f"{server.http_url}/whoami?client=7") == {"you": "client 7 by http"}
        async with connect(f"{server.url}/whoami?client=7") as client:
            assert json.loads(await client.recv()) == {"you": "client 7 by websocket"}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/whoami")
        assert refused.value.response.status_code == 400


async def test_a_router_brings_its_prefix_and_its_dependencies() -> None:
    async with run(EXAMPLES / "router_prefix.py") as server:
        async with connect(f"{server.url}/v1/sensors/7", additional_headers={"X-Key": "open"}) as client:
            assert json.loads(await client.recv()) == {"sensor": 7}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/v1/sensors/7")
        assert refused.value.response.status_code == 403


async def test_a_signed_token_opens_in_every_way_and_says_who_may_do_what() -> None:
    async with run(EXAMPLES / "jwt_auth.py") as server:

        def login(user: str, password: str) -> str:
            request = urllib.request.Request(f"{server.http_url}/login?user={user}&password={password}", method="POST")
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                token: str = json.load(answer)
                return token

        ada, bob = login("ada", "analytical"), login("bob", "builder")
        header = {"Authorization": f"Bearer {ada}"}
        async with connect(f"{server.url}/me", additional_headers=header) as client:
            assert json.loads(await client.recv()) == {"user": "ada", "may": ["orders:read", "orders:write"]}
        async with connect(f"{server.url}/me", subprotocols=[Subprotocol("bearer"), Subprotocol(bob)]) as client:
            assert json.loads(await client.recv())["user"] == "bob"
            assert client.subprotocol == "bearer"
        async with connect(f"{server.url}/orders") as client:
            await client.send(ada)
            assert await client.recv() == "your order, please"
        async with connect(f"{server.url}/orders") as client:
            await client.send(bob)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (3003, "Insufficient scope")
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/orders", additional_headers={"Authorization": f"Bearer {bob}"})
        assert refused.value.response.status_code == 403
        assert ada not in server.log
        assert bob not in server.log
