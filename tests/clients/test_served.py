"""The JavaScript client as an app serves it: ours, Starlette's and FastAPI's."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from antiphon import App
from antiphon.clients import javascript, runtime_js, runtime_ts, runtime_types
from antiphon.testclient import TestClient


@pytest.mark.parametrize("framework", [App, Starlette, FastAPI])
def test_an_app_serves_the_client_as_a_module_and_says_when_it_is_the_same(framework: Any) -> None:
    app = framework()
    app.add_route("/antiphon.js", javascript)
    with TestClient(app) as client:
        answer = client.get("/antiphon.js")
        assert answer.text == runtime_js()
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get("/antiphon.js", headers={"If-None-Match": f'"x", W/{answer.headers["etag"]}'})
        assert (again.status_code, again.text) == (304, "")
        assert client.head("/antiphon.js").text == ""
        assert client.post("/antiphon.js").status_code == 405


def test_the_texts_are_a_module_without_imports_its_types_and_its_source() -> None:
    assert "export class Client" in runtime_js()
    assert "\nimport " not in runtime_js()
    assert "export declare class Client" in runtime_types()
    assert "export class Client<Events" in runtime_ts()
