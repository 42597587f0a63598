"""Step 6 as it is printed: logins, workers, Redis, nginx with TLS and the numbers, in real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import signal
import ssl
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.commands import run
from tests.deploying.proxies import NGINX, Proxy, proxy
from tests.deploying.test_proxies import status
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.serving import ServedProcess, somebody_listens

from .printed import STEP_4, STEP_5, STEP_6, blocks, printed
from .test_steps import say


def shell(text: str, folder: Path) -> None:
    subprocess.run(["/bin/sh", "-ec", text], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)


def lines(beginning: str) -> list[str]:
    """The lines of the step's shell blocks that begin so, continued ones in one."""
    text = "\n".join(blocks(STEP_6, "sh")).replace("\\\n", " ")
    found = [line for line in text.splitlines() if line.startswith(beginning)]
    assert found, beginning
    return found


@contextlib.asynccontextmanager
async def live(folder: Path, redis: RedisServer | None) -> AsyncGenerator[tuple[ServedProcess, Proxy]]:
    """The files, the commands and nginx of the step. `redis` where its second half is followed, too."""
    if NGINX.binary is None:
        pytest.skip("nginx is not installed: make system")
    printed(folder, STEP_4, STEP_5, STEP_6)
    for line in lines("echo "):
        if "HUB_URL" not in line:
            shell(line, folder)
        elif redis is not None:
            shell(line.replace("redis://localhost:6379", redis.url), folder)
    (command,) = set(lines("antiphon run "))
    _, _, target, *options = shlex.split(command)
    async with run(target, *options, app_dir=folder) as server:
        await somebody_listens(server)
        async with proxy(NGINX, folder, server.port) as front:
            yield server, front


async def enter(browser: Browser, front: Proxy, name: str, password: str) -> Page:
    """A visitor with cookies of their own, logged in."""
    context = await browser.new_context(ignore_https_errors=True)
    page = await context.new_page()
    await page.goto(front.site)
    await expect(page.get_by_role("status")).to_have_text("unauthorized")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Enter").click()
    return page


async def counted(server: ServedProcess, sample: str, number: int) -> None:
    """Wait until /metrics says so."""
    async with asyncio.timeout(PATIENCE):
        while f"{sample} {number}.0\n" not in await asyncio.to_thread(metrics, server):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def replaced(server: ServedProcess, workers: int) -> None:
    """Wait until the workers that the server began with have ended."""
    async with asyncio.timeout(PATIENCE):
        while server.log.count("Finished server process") < workers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def metrics(server: ServedProcess) -> str:
    (line,) = lines("curl -s localhost:8000/metrics")
    asked = line.partition(" | ")[0].replace("localhost:8000", f"127.0.0.1:{server.port}")
    return subprocess.run(shlex.split(asked), capture_output=True, text=True, timeout=PATIENCE, check=False).stdout


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("backend", ["relay", "redis"])
async def test_step_6_serves_two_workers_behind_nginx_and_a_reload_loses_nothing(
    tmp_path: Path, browser: Browser, backend: str
) -> None:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer()) if backend == "redis" else None
        async with live(tmp_path, redis) as (server, front):
            (password,) = re.findall(r"^CHAT_PASSWORD=(\w{16})$", (tmp_path / ".env").read_text(), re.MULTILINE)
            ada, bob = [await enter(browser, front, name, password) for name in ("ada", "bob")]
            for page in (ada, bob):
                await expect(page.get_by_role("status")).to_have_text("open")
                await expect(page.get_by_label("Password")).to_be_hidden()
            await say(ada, "before")
            await expect(bob.get_by_role("listitem")).to_have_text(["ada: before"])
            await counted(server, "antiphon_connections_open", 2)
            server.process.send_signal(signal.SIGHUP)
            await replaced(server, workers=2)
            await counted(server, "antiphon_connections_open", 2)
            for page in (ada, bob):
                await expect(page.get_by_role("status")).to_have_text("open")
            await say(bob, "after")
            for page in (ada, bob):
                await expect(page.get_by_role("listitem")).to_have_text(["ada: before", "bob: after"])
            if redis is not None:
                assert any("room/lobby" in name for name in redis.key_names())
            (address,) = re.findall(r"localhost:8000(/\S*)", lines("curl -s localhost:8000/healthz")[0])
            assert await status(front.site, address) == 200
            assert await status(front.site, "/metrics") == 404
            assert re.search(r"Started parent process \[\d+\]", server.log)


@pytest.mark.asyncio(loop_scope="session")
async def test_step_6_nobody_comes_in_with_a_wrong_password(tmp_path: Path, browser: Browser) -> None:
    async with live(tmp_path, None) as (server, front):
        page = await enter(browser, front, "mallory", "sesame")
        await expect(page.get_by_role("alert")).to_have_text("the password is wrong")
        await expect(page.get_by_role("status")).to_have_text("unauthorized")
        assert await page.context.cookies() == []
        await counted(server, "antiphon_connections_open", 0)


def test_the_certificate_of_step_6_is_made_as_printed(tmp_path: Path) -> None:
    (line,) = lines("openssl req")
    shell(line.replace("/etc/ssl/", f"{tmp_path}/"), tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "example.com.pem", tmp_path / "example.com.key")
