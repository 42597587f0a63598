"""A route to one resource is found at its path, and never redirects."""

from __future__ import annotations

import pytest

from antiphon import App, PlainTextResponse
from antiphon.routing.leaf import LeafRoute, is_leaf
from antiphon.testclient import TestClient
from antiphon.types import Receive, Scope, Send


class Health:
    is_leaf = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("well")(scope, receive, send)


def test_only_what_says_so_is_a_leaf() -> None:
    assert is_leaf(Health())
    assert not is_leaf(object())


@pytest.mark.parametrize("path", ["/healthz", "/healthz/", "/healthz//"])
def test_a_leaf_answers_with_slashes_behind_its_path_too(path: str) -> None:
    app = App(routes=[LeafRoute("/healthz", Health())])
    answer = TestClient(app).get(path, follow_redirects=False)
    assert (answer.status_code, answer.text) == (200, "well")


@pytest.mark.parametrize("path", ["/healthz/more", "/health", "/"])
def test_nothing_is_below_a_leaf(path: str) -> None:
    app = App(routes=[LeafRoute("/healthz", Health())])
    assert TestClient(app).get(path, follow_redirects=False).status_code == 404


def test_a_leaf_at_the_root_is_found_there() -> None:
    assert TestClient(App(routes=[LeafRoute("/", Health())])).get("/").text == "well"


def test_a_leaf_below_a_mount_is_found_below_it() -> None:
    app = App()
    app.mount("/api", App(routes=[LeafRoute("/healthz", Health())]))
    assert TestClient(app).get("/api/healthz/", follow_redirects=False).text == "well"
