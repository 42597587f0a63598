"""The proxies of examples/deploy, run with the files there: ports, certificates and timeouts are put in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.certificates import self_signed
from tests.commands import EXAMPLES
from tests.patience import PATIENCE
from tests.redis_server import free_port

FILES = EXAMPLES / "deploy"
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"

AROUND_NGINX = """
daemon off;
user root;
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
    {text}
}}
"""

AROUND_CADDY = "{{\n\tadmin localhost:{admin}\n\tauto_https disable_redirects\n}}\n{text}"


@dataclass(frozen=True)
class Kind:
    """How one proxy is started and told to read its file again."""

    name: str
    file: str
    command: Callable[[str, Path], list[str]]
    meant: Callable[[str, Path, int, int], str]
    """The file's text, a folder, the port to listen on and the one behind: the text that runs here."""
    reload: signal.Signals | None
    closes_at_reload: bool = False
    heard: str = ""
    """Its line once it has handled a signal, for proxies that lose signals soon after their start."""

    @property
    def binary(self) -> str | None:
        return shutil.which(self.name, path=SEARCHED)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for shown, meant in pairs:
        assert text.count(shown) == 1, shown
        text = text.replace(shown, meant)
    return text


def _nginx(text: str, folder: Path, port: int, behind: int) -> str:
    text = replaced(
        text,
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/example.com.pem", f"{folder}/certificate.pem"),
        ("/etc/ssl/example.com.key", f"{folder}/key.pem"),
        ("127.0.0.1:8000;", f"127.0.0.1:{behind};"),
    )
    return AROUND_NGINX.format(folder=folder, text=text)


def _caddy(text: str, folder: Path, port: int, behind: int) -> str:
    text = replaced(
        text,
        ("example.com {", f"https://localhost:{port} {{"),
        ("/etc/ssl/example.com.pem", f"{folder}/certificate.pem"),
        ("/etc/ssl/example.com.key", f"{folder}/key.pem"),
        ("127.0.0.1:8000", f"127.0.0.1:{behind}"),
    )
    return AROUND_CADDY.format(admin=free_port(), text=text)


def _haproxy(text: str, folder: Path, port: int, behind: int) -> str:
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return replaced(
        text,
        ("bind :443 ", f"bind 127.0.0.1:{port} "),
        ("/etc/ssl/example.com.both.pem", str(both)),
        ("127.0.0.1:8000 ", f"127.0.0.1:{behind} "),
        ("maxconn 100000", "maxconn 100"),  # as many descriptors as a test may have
    )


NGINX = Kind(
    "nginx",
    "nginx.conf",
    lambda binary, file: [binary, "-e", "stderr", "-p", str(file.parent), "-c", str(file)],
    _nginx,
    signal.SIGHUP,
)
CADDY = Kind(
    "caddy",
    "Caddyfile",
    lambda binary, file: [binary, "run", "--adapter", "caddyfile", "--config", str(file)],
    _caddy,
    None,
    closes_at_reload=True,
)
HAPROXY = Kind(
    "haproxy",
    "haproxy.cfg",
    lambda binary, file: [binary, "-W", "-db", "-f", str(file)],
    _haproxy,
    signal.SIGUSR2,
    heard="Reloading HAProxy",
)
KINDS = (NGINX, CADDY, HAPROXY)


@dataclass
class Proxy:
    """One that runs, in front of the server at port `behind`."""

    kind: Kind
    folder: Path
    port: int
    text: str
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / self.kind.file

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"

    @property
    def site(self) -> str:
        return f"https://localhost:{self.port}"

    async def reload(self, *changes: tuple[str, str]) -> None:
        """Change the file, and have it read again as its page says."""
        self.file.write_text(replaced(self.text, *changes))
        if self.kind.reload is not None:
            self.process.send_signal(self.kind.reload)
            while self.kind.heard not in "".join(self.lines):
                await asyncio.sleep(0.2)
                self.process.send_signal(self.kind.reload)
            return
        assert self.kind.binary is not None
        reloading = await asyncio.create_subprocess_exec(
            *(self.kind.binary, "reload", "--adapter", "caddyfile", "--config", str(self.file)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await reloading.communicate()
        assert reloading.returncode == 0, said.decode()


@contextlib.asynccontextmanager
async def proxy(kind: Kind, folder: Path, behind: int, *changes: tuple[str, str]) -> AsyncGenerator[Proxy]:
    """`kind` with its file of examples/deploy, changed by `changes`, on a port that was free a moment ago."""
    binary = kind.binary
    assert binary is not None
    self_signed(folder)
    log = ""
    for _ in range(5):
        port = free_port()
        text = kind.meant(replaced((FILES / kind.file).read_text(), *changes), folder, port, behind)
        (folder / kind.file).write_text(text)
        process = await asyncio.create_subprocess_exec(
            *kind.command(binary, folder / kind.file),
            env=os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        running = Proxy(kind, folder, port, text, process)
        reading = asyncio.create_task(_read(running))
        try:
            if await _listens(port, process):
                yield running
                return
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await reading
            log = "".join(running.lines)
    raise AssertionError(log)


async def _read(running: Proxy) -> None:
    assert running.process.stdout is not None
    async for line in running.process.stdout:
        running.lines.append(line.decode(errors="replace"))


async def _listens(port: int, process: asyncio.subprocess.Process) -> bool:
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


def trusting() -> ssl.SSLContext:
    """A context for a certificate of the test's own making."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
