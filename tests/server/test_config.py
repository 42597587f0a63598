"""The limits: valid, from the environment, and uvicorn's own winning."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.wire import DeflateConfig

from .raw import echo


@pytest.mark.parametrize(
    "options",
    [
        {"max_message_size": 0},
        {"outbox_bytes": 0},
        {"send_timeout": 0},
        {"send_timeout": -1.0},
        {"ping_interval": 0},
        {"max_connections": 0},
        {"stop_window": -1},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        ServerConfig(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"send_timeout": "20"}, "send_timeout must be a number, not '20'"),
        ({"max_message_size": None}, "max_message_size must be a number, not None"),
        ({"deflate": True}, "deflate must be a DeflateConfig, or None to refuse compression, not True"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        ServerConfig(**options)


def test_a_protocol_takes_its_limits_from_a_server_config_alone() -> None:
    with pytest.raises(TypeError, match=r"takes a ServerConfig, not \{'send_timeout': 3\}"):
        WebSocketProtocol.with_config({"send_timeout": 3})  # type: ignore[arg-type]


def test_the_environment_changes_the_defaults() -> None:
    environ = {
        "ANTIPHON_WS_SEND_TIMEOUT": "2.5",
        "ANTIPHON_WS_OUTBOX_BYTES": "1000",
        "ANTIPHON_WS_MAX_CONNECTIONS": "10",
        "ANTIPHON_WS_HANDSHAKE_TIMEOUT": "none",
        "ANTIPHON_PURE": "1",
    }
    config = ServerConfig.from_environ(environ)
    assert config == ServerConfig(send_timeout=2.5, outbox_bytes=1000, max_connections=10, handshake_timeout=None)
    assert type(config.outbox_bytes) is int


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"ANTIPHON_WS_SEND_TIMOUT": "1"}, "SEND_TIMOUT"),
        ({"ANTIPHON_WS_SEND_TIMEOUT": "soon"}, "soon"),
        ({"ANTIPHON_WS_OUTBOX_BYTES": "none"}, "none"),
        ({"ANTIPHON_WS_OBSERVERS": "x"}, "OBSERVERS"),
    ],
)
def test_a_variable_that_cannot_be_understood_is_an_error_that_names_it(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ServerConfig.from_environ(environ)


async def test_uvicorns_settings_win_over_ours_and_one_server_has_one_engine() -> None:
    config = uvicorn.Config(
        echo,
        ws=WebSocketProtocol,
        ws_max_size=5,
        ws_ping_interval=6,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        log_config=None,
    )
    limits = ServerConfig(max_message_size=1, ping_interval=1, ping_timeout=1, send_timeout=3)
    protocol = WebSocketProtocol.with_config(limits)
    state = ServerState()
    sessions = [protocol(config=config, server_state=state, app_state={}) for _ in range(2)]
    used = sessions[0].engine.config
    assert (used.max_message_size, used.ping_interval, used.ping_timeout, used.deflate) == (5, 6, None, None)
    assert used.send_timeout == 3
    assert sessions[0].engine is sessions[1].engine
    other = protocol(config=config, server_state=ServerState(), app_state={})
    assert other.engine is not sessions[0].engine


async def test_compression_settings_of_ours_hold_where_uvicorn_allows_compression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTIPHON_WS_CLOSE_TIMEOUT", "1.5")
    config = uvicorn.Config(echo, ws=WebSocketProtocol, log_config=None)
    session = WebSocketProtocol(config=config, server_state=ServerState(), app_state={})
    assert session.engine.config.close_timeout == 1.5
    deflate = DeflateConfig(level=9)
    protocol = WebSocketProtocol.with_config(ServerConfig(deflate=deflate))
    session = protocol(config=config, server_state=ServerState(), app_state={})
    assert session.engine.config.deflate == deflate
