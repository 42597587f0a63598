"""Companion HTTP routes: the same injection, JSON out."""

from __future__ import annotations

import datetime
import functools
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask

from antiphon import (
    APIRouter,
    App,
    BackgroundTasks,
    Body,
    Depends,
    File,
    Form,
    HTMLResponse,
    HTTPException,
    Hub,
    JSONResponse,
    Path,
    PlainTextResponse,
    Query,
    Response,
    StreamingResponse,
    UploadFile,
)
from antiphon.exceptions import GeneratorError, ParameterErrors, ResponseValidationError, TryAgainLater
from antiphon.hub import BackendUnavailable, Position
from antiphon.testclient import TestClient


class Item(BaseModel):
    name: str
    secret: str | None = None
    when: datetime.date = datetime.date(2026, 1, 2)


class Public(BaseModel):
    name: str


class Report(BaseModel):
    title: str
    sheet: UploadFile


@pytest.mark.parametrize("method", ["get", "put", "post", "delete", "options", "head", "patch", "trace"])
def test_every_method_has_its_decorator(method: str) -> None:
    app = App()
    getattr(app, method)("/x")(lambda: {"method": method})
    response = TestClient(app).request(method.upper(), "/x")
    assert response.status_code == 200
    assert response.content == b"" if method == "head" else response.json() == {"method": method}


def test_parameters_come_from_path_query_and_body() -> None:
    app = App()

    @app.post("/items/{number}")
    async def create(number: Annotated[int, Path(ge=1)], item: Item, note: Annotated[str, Query()] = "none") -> Any:
        return {"number": number, "name": item.name, "note": note}

    client = TestClient(app)
    assert client.post("/items/3?note=n", json={"name": "a"}).json() == {"number": 3, "name": "a", "note": "n"}
    refused = client.post("/items/0", json={})
    assert refused.status_code == 422
    assert {tuple(error["loc"]) for error in refused.json()["detail"]} == {("path", "number"), ("body", "name")}


def test_a_model_is_written_as_pydantic_writes_it() -> None:
    app = App()
    app.get("/model")(lambda: Item(name="a"))
    assert TestClient(app).get("/model").json() == {"name": "a", "secret": None, "when": "2026-01-02"}


class Point:
    """No model, no dataclass: FastAPI writes its attributes."""

    def __init__(self) -> None:
        self.x, self.inner = 1, {"when": datetime.date(2026, 1, 2)}


def test_what_pydantic_does_not_know_is_written_by_its_attributes() -> None:
    app = App()
    app.get("/object")(lambda: [Point()])
    app.get("/loud", response_class=JSONResponse)(lambda: Point())
    app.get("/nothing")(lambda: object())
    client = TestClient(app)
    point = {"x": 1, "inner": {"when": "2026-01-02"}}
    assert (client.get("/object").json(), client.get("/loud").json()) == ([point], point)
    with pytest.raises(ValueError, match="object has no JSON form"):
        client.get("/nothing")


def later(function: Any) -> Any:
    """A typical decorator: async around any function."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Called:
    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __call__(self, number: int) -> dict[str, int]:
        return {"called with": number}


def test_an_endpoint_is_awaited_whatever_it_wraps() -> None:
    app = App()
    app.get("/class", response_model=None)(later(Called))
    app.get("/instance")(later(Called()))
    app.get("/partial")(functools.partial(later(Called()), number=5))
    client = TestClient(app)
    assert client.get("/class?number=3").json() == {"number": 3}
    assert client.get("/instance?number=4").json() == {"called with": 4}
    assert client.get("/partial").json() == {"called with": 5}


def test_the_response_model_filters_and_the_options_shape_it() -> None:
    app = App()
    app.get("/public", response_model=Public)(lambda: Item(name="a", secret="s"))
    app.get("/short", response_model=Item, response_model_exclude_none=True, response_model_exclude={"when"})(
        lambda: Item(name="a")
    )
    client = TestClient(app)
    assert client.get("/public").json() == {"name": "a"}
    assert client.get("/short").json() == {"name": "a"}


def test_the_return_annotation_is_the_response_model_unless_one_is_given() -> None:
    app = App()

    @app.get("/annotated")
    def annotated() -> Public:
        return Item(name="a", secret="s")  # type: ignore[return-value]  # the model cuts it

    @app.get("/any", response_model=None)
    def anything() -> Public:
        return Item(name="a", secret="s")  # type: ignore[return-value]

    client = TestClient(app)
    assert client.get("/annotated").json() == {"name": "a"}
    assert client.get("/any").json()["secret"] == "s"


def test_a_return_value_that_is_not_what_was_promised_is_our_fault() -> None:
    app = App()
    app.get("/broken", response_model=Item)(lambda: {"nom": "a"})
    with pytest.raises(ResponseValidationError):
        TestClient(app).get("/broken")
    assert TestClient(app, raise_server_exceptions=False).get("/broken").status_code == 500


def test_a_response_is_sent_as_it_is() -> None:
    app = App()
    app.get("/teapot")(lambda: PlainTextResponse("short", status_code=418, headers={"x-spout": "1"}))
    response = TestClient(app).get("/teapot")
    assert (response.status_code, response.text, response.headers["x-spout"]) == (418, "short", "1")


def test_status_code_and_response_class_are_those_of_the_route() -> None:
    app = App()
    app.get("/page", response_class=HTMLResponse, status_code=201)(lambda: "<p>hi")
    app.delete("/gone", status_code=204)(lambda: None)
    client = TestClient(app)
    page = client.get("/page")
    assert (page.status_code, page.text, page.headers["content-type"]) == (201, "<p>hi", "text/html; charset=utf-8")
    gone = client.delete("/gone")
    assert (gone.status_code, gone.content) == (204, b"")


def test_a_default_response_class_reaches_included_routes() -> None:
    class Loud(JSONResponse):
        media_type = "application/loud+json"

    router = APIRouter()
    router.get("/x")(lambda: 1)
    app = App(default_response_class=Loud)
    app.include_router(router)
    assert TestClient(app).get("/x").headers["content-type"] == "application/loud+json"


def test_a_dependency_may_set_headers_cookies_and_status() -> None:
    def decorate(response: Response) -> None:
        response.headers["x-by"] = "dependency"
        response.set_cookie("seen", "1")
        response.status_code = 202

    app = App()
    app.get("/x", dependencies=[Depends(decorate)])(lambda: {"a": 1})
    response = TestClient(app).get("/x")
    assert (response.status_code, response.headers["x-by"], response.cookies["seen"]) == (202, "dependency", "1")


def test_background_tasks_run_after_the_response() -> None:
    ran: list[str] = []
    app = App()

    @app.get("/x")
    def endpoint(later: BackgroundTasks) -> str:
        later.add_task(ran.append, "later")
        return "now"

    assert TestClient(app).get("/x").json() == "now"
    assert ran == ["later"]


def test_errors_are_json_with_a_detail() -> None:
    app = App()

    @app.get("/denied")
    def denied() -> None:
        raise HTTPException(403, {"reason": "no"}, headers={"x-why": "because"})

    response = TestClient(app).get("/denied")
    assert (response.status_code, response.json(), response.headers["x-why"]) == (
        403,
        {"detail": {"reason": "no"}},
        "because",
    )
    assert TestClient(app).get("/nowhere").json() == {"detail": "Not Found"}


def hub_routes(away: list[Exception]) -> APIRouter:
    """Routes whose hub refuses a peer's data, or is away."""
    router = APIRouter()
    hub = Hub()

    @router.post("/publish")
    async def publish(topic: str, text: Annotated[str, Body()]) -> None:
        await hub.publish(topic, text)

    @router.get("/position")
    def position(since: str) -> str:
        return str(Position.parse(since))

    @router.get("/count")
    def count() -> int:
        raise away[0]

    return router


FAULTS = [
    ("/publish?topic=" + "x" * 600, '"hi"', 400, "not a topic", "not a topic name"),
    ("/publish?topic=tea", '"\\ud800"', 400, "text is not Unicode", "surrogate"),
    ("/position?since=what", None, 400, "not a position", "not a position"),
    ("/count", None, 503, "try again later", "not connected to the relay"),
]


@pytest.mark.parametrize(("path", "body", "status", "detail", "note"), FAULTS)
@pytest.mark.parametrize("kind", [App, FastAPI, Starlette])
def test_a_peers_fault_and_a_backend_that_is_away_are_no_errors_of_the_server(
    kind: Any, path: str, body: str | None, status: int, detail: str, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = kind()
    app.mount("/hub", hub_routes([BackendUnavailable("not connected to the relay")]))
    client = TestClient(app)
    with caplog.at_level("WARNING", "antiphon"):
        headers = {"content-type": "application/json"}
        response = client.request("GET" if body is None else "POST", f"/hub{path}", content=body, headers=headers)
    assert response.status_code == status
    assert detail in response.text
    (line,) = [record for record in caplog.records if record.name == "antiphon"]
    assert note in line.message
    assert "hub_routes" in line.message
    assert line.exc_info is None


@pytest.mark.parametrize("kind", [App, FastAPI, Starlette])
def test_behind_the_answer_they_are_one_line_in_the_log(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    router, done = APIRouter(), []

    async def later() -> None:
        done.append("later")
        raise BackendUnavailable("not connected to the relay")

    @router.post("/declared")
    async def declared(tasks: BackgroundTasks) -> str:
        tasks.add_task(later)
        return "taken"

    @router.post("/streamed")
    async def streamed() -> Response:
        return StreamingResponse(iter(["tak", "en"]), background=BackgroundTask(later))

    app = kind()
    app.mount("/hub", router)
    with caplog.at_level("WARNING", "antiphon"):
        for path in ("declared", "streamed"):
            response = TestClient(app).post(f"/hub/{path}")
            assert (response.status_code, response.text.strip('"')) == (200, "taken")
    assert done == ["later", "later"]
    lines = [record for record in caplog.records if record.name == "antiphon"]
    assert [line.exc_info for line in lines] == [None, None]
    assert all("background task of" in line.message and "not connected to the relay" in line.message for line in lines)


def test_they_are_errors_where_the_answer_breaks_off() -> None:
    router = APIRouter()

    async def parts() -> AsyncIterator[str]:
        yield "half"
        raise BackendUnavailable("not connected to the relay")

    @router.get("/")
    async def streamed() -> Response:
        return StreamingResponse(parts(), background=BackgroundTask(print))

    app = App()
    app.include_router(router)
    with pytest.raises(RuntimeError, match="response already started"):
        TestClient(app).get("/")


@pytest.mark.parametrize("kind", [App, FastAPI])
def test_a_handler_of_ones_own_answers_them_first(kind: Any) -> None:
    async def busy(request: Any, error: Exception) -> Response:
        return JSONResponse({"busy": str(error)}, 529)

    app = kind(exception_handlers={TryAgainLater: busy})
    app.include_router(hub_routes([BackendUnavailable("away")]))
    response = TestClient(app).get("/count")
    assert (response.status_code, response.json()) == (529, {"busy": "away"})


def test_files_are_read_as_objects_or_as_bytes() -> None:
    app = App()

    @app.post("/files")
    async def files(
        one: UploadFile,
        raw: Annotated[bytes, File()],
        many: list[UploadFile],
        raws: Annotated[list[bytes], File()],
        note: Annotated[str, Form()],
        none: UploadFile | None = None,
    ) -> Any:
        return [one.filename, await one.read(), raw, [file.filename for file in many], raws, note, none]

    @app.post("/report")
    async def report(report: Annotated[Report, Form()]) -> Any:
        return [report.title, await report.sheet.read()]

    client = TestClient(app)
    sent = [
        ("one", ("a.txt", b"A")),
        ("raw", ("b.txt", b"B")),
        *[("many", (name, b"")) for name in ("c", "d")],
        *[("raws", ("e", content)) for content in (b"1", b"2")],
    ]
    answer = client.post("/files", files=sent, data={"note": "n"})
    assert answer.json() == ["a.txt", "A", "B", ["c", "d"], ["1", "2"], "n", None]
    assert client.post("/report", files={"sheet": b"S"}, data={"title": "t"}).json() == ["t", "S"]


def test_a_form_field_that_is_no_file_is_told_and_so_is_a_missing_one() -> None:
    app = App()

    @app.post("/files")
    async def files(one: UploadFile, raw: Annotated[bytes, File()]) -> None: ...

    refused = TestClient(app).post("/files", data={"one": "text"})
    assert refused.status_code == 422
    assert [(error["type"], error["loc"]) for error in refused.json()["detail"]] == [
        ("is_instance_of", ["body", "one"]),
        ("missing", ["body", "raw"]),
    ]


def test_a_handler_may_answer_parameter_errors() -> None:
    app = App()

    @app.exception_handler(ParameterErrors)
    async def handler(request: Any, error: ParameterErrors) -> Response:
        return PlainTextResponse(f"{len(error.errors())} wrong in {error.body}", status_code=400)

    @app.post("/x")
    def endpoint(value: Annotated[int, Body(embed=True)], q: int) -> None: ...

    assert TestClient(app).post("/x", json={"value": "a"}).text == "2 wrong in {'value': 'a'}"


def test_function_scoped_dependencies_end_before_the_response_and_request_scoped_after() -> None:
    order: list[str] = []

    def function_scoped() -> Any:
        yield
        order.append("function")

    def request_scoped() -> Any:
        yield
        order.append("request")

    class Recorded(PlainTextResponse):
        async def __call__(self, *args: Any) -> None:
            order.append("response")
            await super().__call__(*args)

    app = App()
    dependencies = [Depends(function_scoped, scope="function"), Depends(request_scoped)]
    app.get("/x", dependencies=dependencies)(lambda: Recorded("ok"))
    TestClient(app).get("/x")
    assert order == ["function", "response", "request"]


@pytest.mark.parametrize("scope", ["function", "request"])
def test_a_dependency_that_swallows_the_exception_is_an_error_that_says_so(scope: Any) -> None:
    def swallows() -> Any:
        try:
            yield
        except ZeroDivisionError:
            pass

    app = App()
    app.get("/x", dependencies=[Depends(swallows, scope=scope)])(lambda: 1 / 0)
    with pytest.raises(GeneratorError, match="/x: a dependency with yield swallowed"):
        TestClient(app).get("/x")
