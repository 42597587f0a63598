"""No secret reaches a log: of our server, of others, of `antiphon run`."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from antiphon.gate import SecretFilter
from antiphon.masking import is_secret, masked, masked_query, masked_subprotocols
from tests.commands import run
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import until
from tests.serving import serve_hypercorn, serve_process

from .secret_app import application

HERE = Path(__file__).parent

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"

LINES = [
    ("/ws?token=S3CRET", "/ws?token=***"),
    ("/ws?a=1&token=S3CRET&b=2", "/ws?a=1&token=***&b=2"),
    ("/ws?token=S3CRET&token=S3CRET", "/ws?token=***&token=***"),
    ("/ws?Token=S3CRET&API-KEY=S3CRET", "/ws?Token=***&API-KEY=***"),
    ("/ws?to%6Ben=S3CRET", "/ws?to%6Ben=***"),
    ("/ws?%74%6f%6b%65%6e=S3CRET", "/ws?%74%6f%6b%65%6e=***"),
    ("/ws?to%256ben=S3CRET", "/ws?to%256ben=***"),
    ("/ws?a=1;ticket=S3CRET;b=2", "/ws?a=1;ticket=***;b=2"),
    ("/ws?+token=S3CRET", "/ws?+token=***"),
    ("/ws?token[]=S3CRET", "/ws?token[]=***"),
    ("/ws?token=S3%43RET%26x", "/ws?token=***"),
    ("/ws?token=S3CRET=S3CRET==", "/ws?token=***"),
    ("/ws?next=%2Fin%3Ftoken%3DS3CRET", "/ws?next=***"),
    ("/ws?next=%2Fin%3Fpage%3D2", "/ws?next=%2Fin%3Fpage%3D2"),
    ("/ws?token=", "/ws?token="),
    ("/ws?tokens=3&monkey=1&page=2", "/ws?tokens=3&monkey=1&page=2"),
    ('127.0.0.1:5 - "GET /x?secret=S3CRET HTTP/1.1" 200', '127.0.0.1:5 - "GET /x?secret=*** HTTP/1.1" 200'),
    ("< Authorization: Bearer S3CRET", "< Authorization: ***"),
    ("[(b'authorization', b'Basic S3CRET'), (b'host', b'x')]", "[(b'authorization', b'***'), (b'host', b'x')]"),
    ("< Cookie: session=S3CRET; a=S3CRET", "< Cookie: ***"),
    ("Sec-WebSocket-Protocol: chat, bearer, S3CRET", "Sec-WebSocket-Protocol: chat, bearer, ***"),
    ("['bearer', 'S3CRET', 'chat']", "['bearer', '***', 'chat']"),
    ("base64url.bearer.authorization.k8s.io.S3CRET, chat", "base64url.bearer.authorization.k8s.io.***, chat"),
    (f"no such thing: {JWT}", "no such thing: ***"),
    ("came with cookies; bearer credentials are needed", "came with cookies; bearer credentials are needed"),
    ("closed with code=1000", "closed with code=1000"),
]


@pytest.mark.parametrize(("line", "shown"), LINES)
def test_a_line_is_shown_without_its_secrets(line: str, shown: str) -> None:
    assert masked(line) == shown


def test_further_names_are_told() -> None:
    # A name that no scheme of another test reads credentials from.
    assert masked_query("/x?riddle=S3CRET&rid-dle=a") == "/x?riddle=S3CRET&rid-dle=a"
    assert masked_query("/x?RIDDLE=S3CRET&b=1", {"riddle"}) == "/x?RIDDLE=***&b=1"
    assert is_secret("Riddle-Code", {"riddle_code"})


def test_masking_takes_time_in_proportion_to_what_it_reads() -> None:
    for text in (
        "&" * 60_000,
        "token" * 12_000,
        "?a" * 30_000,
        "=" * 60_000,
        "bearer," * 9_000,
        "eyJ" * 20_000,
        "%3D" * 9_000,
    ):
        masked(text)
        masked_query("?next=" + text)


def test_tokens_among_subprotocols_are_hidden_and_the_rest_is_not() -> None:
    assert masked_subprotocols(["chat", "bearer", "S3CRET", "base64url.bearer.authorization.k8s.io.S3CRET", JWT]) == [
        *("chat", "bearer", "***", "***", "***")
    ]


def recorded(message: str, *args: Any, formatter: logging.Formatter | None = None, names: Any = (), **more: Any) -> str:
    """The output of a handler with the filter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter(names))
    if formatter is not None:
        handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info(message, *args, **more)
    return stream.getvalue()


def test_the_filter_masks_arguments_that_only_together_are_a_secret() -> None:
    assert recorded("%s: %s", "Authorization", "Bearer S3CRET") == "Authorization: ***\n"
    assert recorded("%(name)s: %(value)s", {"name": "cookie", "value": "S3CRET"}) == "cookie: ***\n"
    assert recorded("?token=%d", 5) == "?token=***\n"
    assert recorded("100% of nothing") == "100% of nothing\n"
    assert "S3CRET" not in recorded("?invite=S3CRET", names=["Invite"])


def test_the_filter_leaves_uvicorns_access_formatter_its_arguments() -> None:
    from uvicorn.logging import AccessFormatter

    formatter = AccessFormatter('%(client_addr)s "%(request_line)s" %(status_code)s', use_colors=False)
    line = recorded(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:9", "GET", "/x?a=1&token=S3CRET", "1.1", 200, formatter=formatter
    )
    assert line == '127.0.0.1:9 "GET /x?a=1&token=*** HTTP/1.1" 200 OK\n'


def test_the_filter_masks_tracebacks() -> None:
    try:
        raise ValueError(f"bad: {JWT} and ?token=S3CRET")
    except ValueError:
        text = recorded("failed", exc_info=True)
    assert "ValueError: bad: *** and ?token=***" in text
    assert JWT not in text


def test_the_filter_survives_what_cannot_be_formatted_and_wrong_names(capsys: pytest.CaptureFixture[str]) -> None:
    recorded("%d", "x")
    assert "Logging error" in capsys.readouterr().err
    with pytest.raises(TypeError, match=r"write \['token'\]"):
        SecretFilter("token")


async def visit(port: int) -> None:
    """Give every kind of secret to a server."""
    url = f"127.0.0.1:{port}"
    await asyncio.to_thread(urllib.request.urlopen, f"http://{url}/page?token=S3CRET&invite=S3CRET&a=b")
    headers = {"Authorization": "Bearer S3CRET", "X-Api-Key": "S3CRET", "Cookie": "session=S3CRET"}
    offered = [Subprotocol(one) for one in ("bearer", "S3CRET", "base64url.bearer.authorization.k8s.io.S3CRET")]
    async with connect(
        f"ws://{url}/ws?to%6ben=S3CRET&invite=S3CRET", subprotocols=offered, additional_headers=headers
    ) as client:
        await client.wait_closed()
    with pytest.raises(InvalidStatus):
        await connect(f"ws://{url}/checked?token=S3CRET", additional_headers=headers)
    with pytest.raises(InvalidStatus):
        await connect(f"ws://{url}/nowhere?token=S3CRET", additional_headers=headers, subprotocols=offered)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_our_own_lines_hold_no_secret_on_any_server(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with server.run(application()) as served:
        await visit(served.port)
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("antiphon")]
    assert any("query.token: value_error" in line for line in ours)
    assert any("is not among those the client offers" in line for line in ours)
    assert not [line for line in ours if "S3CRET" in line]


async def test_the_engines_access_lines_hold_none_whatever_the_servers_config(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with SERVERS[0].run(application()) as served:
        async with connect(f"{served.url}/ws?a=1&token=S3CRET"):
            pass
    assert 'WebSocket /ws?a=1&token=***" [accepted]' in caplog.text
    assert "S3CRET" not in caplog.text


@pytest.mark.parametrize(
    ("ws", "workers"), [("antiphon", "1"), ("antiphon", "2"), ("websockets-sansio", "1"), ("wsproto", "1")]
)
async def test_antiphon_run_shows_none_at_any_level(ws: str, workers: str) -> None:
    async with run(
        "secret_app:app", "--ws", ws, "--mask", "invite", "--log-level", "trace", "--workers", workers, app_dir=HERE
    ) as server:
        await visit(server.port)
        await server.wait_for_line(r"/nowhere")
    assert "/page?token=***&invite=***&a=b" in server.log
    assert "/ws?to%6ben=***&invite=***" in server.log
    assert "S3CRET" not in server.log


CONFIG = """\
{
  "version": 1, "disable_existing_loggers": false,
  "filters": {"secrets": {"()": "antiphon.gate.SecretFilter", "names": ["invite"]}},
  "handlers": {"all": {"class": "logging.StreamHandler", "filters": ["secrets"], "stream": "ext://sys.stdout"}},
  "root": {"handlers": ["all"], "level": "INFO"}
}
"""


async def test_the_filter_of_the_documents_works_in_uvicorns_log_config(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(CONFIG)
    async with serve_process("secret_app:app", "--log-config", str(tmp_path / "log.json"), app_dir=HERE) as server:
        await visit(server.port)
        await server.wait_for_line(r"/nowhere")
    assert "/page?token=***&invite=***&a=b" in server.log
    assert "S3CRET" not in server.log


async def test_the_filter_masks_hypercorns_access_lines() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter())
    logger = logging.Logger("hypercorn.access", logging.INFO)
    logger.addHandler(handler)
    async with serve_hypercorn(application(), accesslog=logger, access_log_format='%(R)s?%(q)s "%(f)s"') as served:
        url = f"{served.http_url}/page?a=1&token=S3CRET"
        await asyncio.to_thread(urllib.request.urlopen, url)
        await until(stream.getvalue)
    assert "a=1&token=***" in stream.getvalue()
    assert "S3CRET" not in stream.getvalue()
