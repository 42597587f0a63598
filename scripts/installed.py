"""Tries an installed antiphon as its user would: `python -I scripts/installed.py [native | pure]`.

Uses nothing of the checkout and nothing that only tests install. `-I` keeps the current folder off the path.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

APP = """\
from antiphon import App, WebSocket

app = App()

@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
"""

DATA = ["antiphon/py.typed", "pytest_antiphon/py.typed", "antiphon/server/_pipe.pyx"]


def main(expected: str | None) -> None:
    import antiphon
    from antiphon import server

    place = Path(str(antiphon.__file__)).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), f"{place} is no installation of {sys.prefix}"
    version = importlib.metadata.version("antiphon")
    assert version == antiphon.__version__, f"metadata says {version}, the package {antiphon.__version__}"
    root = Path(str(antiphon.__file__)).parent.parent
    for name in DATA:
        assert (root / name).is_file(), f"{name} is not installed"
    engine = "native" if server.native else "pure"
    assert expected in (None, engine), f"the {engine} engine was installed, not the {expected} one"
    serve()
    where = f"Python {sys.version.split()[0]}, {sysconfig.get_platform()}"
    print(f"antiphon {version} on {where}: the {engine} engine serves, and the command line talks to it")


def serve() -> None:
    """An echo over a real socket, with the command that was installed at both ends."""
    command = str(Path(sysconfig.get_path("scripts")) / "antiphon")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text(APP)
        server = subprocess.Popen(
            [command, "run", "main:app", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert server.stdout is not None
            printed = ""
            while not (found := re.search(r"http://(127\.0\.0\.1:\d+)", printed)):
                line = server.stdout.readline()
                assert line, f"the server ended before it listened:\n{printed}"
                printed += line
            said = subprocess.run(
                [command, "connect", f"ws://{found[1]}/echo"],
                input="does it work?\n",
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert said.stdout == "does it work?\n", said
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode in (0, -signal.SIGTERM), f"the server ended with {server.returncode} after SIGTERM"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
