"""The command that ports an app renames FastAPI's imports and nothing else, whichever sed there is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT

CASES = {
    "from fastapi import FastAPI": "from antiphon.fastapi import FastAPI",
    "from fastapi.responses import JSONResponse": "from antiphon.fastapi.responses import JSONResponse",
    "    from fastapi import Depends": "    from antiphon.fastapi import Depends",
    "\tfrom fastapi.security import (": "\tfrom antiphon.fastapi.security import (",
    "import fastapi": "import antiphon.fastapi as fastapi",
    "    import fastapi": "    import antiphon.fastapi as fastapi",
    "import fastapi  # the framework": "import antiphon.fastapi as fastapi  # the framework",
    "import fastapi, os": "import antiphon.fastapi as fastapi, os",
    "import fastapi as api": "import antiphon.fastapi as api",
    "import fastapi.testclient": "import antiphon.fastapi as fastapi, antiphon.fastapi.testclient",
    "import fastapi.testclient as tc": "import antiphon.fastapi.testclient as tc",
    "import fastapi.middleware.cors": "import antiphon.fastapi as fastapi, antiphon.fastapi.middleware.cors",
} | {
    same: same
    for same in (
        "from fastapi_users import FastAPIUsers",
        "from fastapilimiter import Limiter",
        "import fastapi_users",
        "import fastapi_users as fastapi",
        "import fastapi_users.db",
        "from antiphon.fastapi import FastAPI",
        "from my.fastapi import thing",
        "# from fastapi import FastAPI",
        'TEXT = "from fastapi import FastAPI"',
        "app = fastapi.FastAPI()",
    )
}

SEDS = [["sed"], ["sed", "--posix"], ["busybox", "sed"]]


def command(page: str) -> str:
    blocks = re.findall(r"^```sh\n(sed .*?)^antiphon run main:app\n```", (ROOT / page).read_text(), re.M | re.S)
    assert len(blocks) == 1
    return str(blocks[0])


def port(folder: Path, sed: list[str]) -> str:
    """The file after the command, with this sed in sed's place."""
    script = f'sed() {{ command {" ".join(sed)} "$@"; }}\n{command("README.md")}'
    subprocess.run(["sh", "-e", "-c", script], cwd=folder, check=True)
    return (folder / "main.py").read_text()


@pytest.mark.parametrize("sed", SEDS, ids=" ".join)
def test_imports_of_fastapi_are_renamed_and_nothing_else(tmp_path: Path, sed: list[str]) -> None:
    if shutil.which(sed[0]) is None or subprocess.run([*sed, "-n", "p"], input=b"", check=False).returncode:
        pytest.skip(f"there is no `{' '.join(sed)}` here")
    (tmp_path / "main.py").write_text("\n".join(CASES) + "\n")
    assert port(tmp_path, sed).splitlines() == list(CASES.values())
    assert (tmp_path / "main.py.bak").read_text().splitlines() == list(CASES)
    assert port(tmp_path, sed).splitlines() == list(CASES.values())  # doing it again changes nothing


def test_what_it_writes_is_python_and_names_what_the_app_uses(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import fastapi.testclient\nimport fastapi.responses as r\nimport fastapi\n")
    names: dict[str, object] = {}
    exec(port(tmp_path, ["sed"]), names)
    used = "fastapi.testclient.TestClient, fastapi.FastAPI, r.JSONResponse"
    assert len(eval(compile(ast.parse(used, mode="eval"), "main.py", "eval"), names)) == 3


def test_both_pages_show_the_same_command() -> None:
    assert command("README.md") == command("docs/porting.md")


def test_the_command_uses_no_extension_of_one_sed() -> None:
    for extension in (r"\\[bsw+?<>|]", r"-i ", r"-i$", r"-r\b"):
        assert not re.search(extension, command("README.md").replace("\\\n", "\n")), extension
