"""The documents' own configuration for nginx and their own check of Origin, used together, with TLS, on any port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.cli.certificates import self_signed
from tests.commands import ROOT, run
from tests.patience import PATIENCE

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")

AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


def documented(page: str, language: str, naming: str = "") -> str:
    """The page's one snippet in which this stands."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (snippet,) = [one for one in found if naming in one]
    return str(snippet)


def configuration(folder: Path, port: int, behind: int) -> str:
    """docs/server.md's, with this machine's port, certificate and server put in."""
    key, certificate = self_signed(folder)
    text = documented("server.md", "nginx")
    for shown, meant in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/example.com.pem", str(certificate)),
        ("/etc/ssl/example.com.key", str(key)),
        ("http://127.0.0.1:8000;", f"http://127.0.0.1:{behind};"),
    ):
        assert text.count(shown) == 1, shown
        text = text.replace(shown, meant)
    return AROUND.format(folder=folder, documented=text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def nginx(folder: Path, behind: int) -> AsyncGenerator[int]:
    """Its port. Another is tried where somebody else has taken it meanwhile."""
    assert NGINX is not None
    for _ in range(5):
        port = free_port()
        (folder / "nginx.conf").write_text(configuration(folder, port, behind))
        process = await asyncio.create_subprocess_exec(
            *(NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            if await listens(port, process):
                yield port
                return
        finally:
            if process.returncode is None:
                process.terminate()
            _, log = await process.communicate()
    raise AssertionError(log.decode())


async def listens(port: int, process: asyncio.subprocess.Process) -> bool:
    async with asyncio.timeout(PATIENCE):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return True
    return False


def visit(port: int, origin: str | None) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # of the day's own making
    return connect(f"wss://localhost:{port}/live", ssl=context, additional_headers={"Origin": origin} if origin else {})


async def test_pages_of_the_same_site_come_in_and_others_do_not_on_a_port_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text(documented("security.md", "python", "App(origins=SAME)"))
    async with (
        asyncio.timeout(PATIENCE),
        run("guarded:app", app_dir=tmp_path) as server,
        nginx(tmp_path, server.port) as port,
    ):
        for origin in (f"https://localhost:{port}", None):
            async with visit(port, origin) as page:
                assert page.response is not None
                assert page.response.status_code == 101
        for origin in ("https://evil.example", "https://localhost", f"https://localhost:{port + 1}", "null"):
            with pytest.raises(InvalidStatus) as refused:
                async with visit(port, origin):
                    pass
            assert refused.value.response.status_code == 403, origin
