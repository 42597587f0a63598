"""Every kind of field through generated clients: typed, sent, back as Python had it, and each frame in its document."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route

from antiphon.asyncapi.serving import document_of
from tests.asyncapi.judges import complaints
from tests.commands import run
from tests.node import tools
from tests.node.compile import check

from .test_generated import generated
from .torture import Everything, app

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP = Path(__file__).parent / "torture.py"
POINT = {"x": 1, "y": 2}
NODE = {"name": "a", "children": [{"name": "b", "children": []}]}
SENT: dict[str, Any] = {
    "identity": "12345678-1234-5678-1234-567812345678",
    "at": "2026-11-22T10:00:00+01:00",
    "day": "2026-11-22",
    "clock": "10:00:00",
    "long": "PT1H30M",
    "price": "12.50",
    "big": "90071992547409931234567890",
    "count": 9007199254740991,
    "ratio": 0.1,
    "yes": True,
    "nothing": None,
    "color": "blue",
    "level": 2,
    "pair": [1, "ä\u2028\U0001f600"],
    "many": [1, 2, 3],
    "names": ["only"],
    "by_color": {"red": 1},
    "by_number": {"7": NODE},
    "shape": {"kind": "square", "side": 2.5},
    "loose": [1, 2],
    "maybe": None,
    "node": NODE,
    "nested": {"left": {"left": POINT, "right": None}, "right": [{"left": POINT, "right": [POINT]}]},
    "userName": "bob",
    "class": "y",
    "bigger": "1",
    "by_level": {"2": "high"},
    "pet": {"kind": "cat", "name": "kitty"},
    "pets": {"left": {"kind": "cat", "name": "a"}, "right": [{"kind": "dog", "friends": []}]},
    "tree": {"a": [1, {"b": None}, "x"]},
    "trees": [{"a": {"b": []}}],
    "blob": "_w==",
}
LEFT_OUT = ("nothing", "many", "names", "by_color", "by_number", "loose", "maybe", "userName", "class", "blob")
DEFAULTED = ("bigger", "by_level", "pet", "pets", "tree", "trees")
SHORT = {key: value for key, value in SENT.items() if key not in (*LEFT_OUT, *DEFAULTED)}
REMOTE = ["wrong", "leaf", "blue"]

USE_TS = """
import { RemoteError, Torture, type EverythingInput, type EverythingOutput, type Repeat } from "./client.js";
export async function main(base: string, full: EverythingInput, short: EverythingInput): Promise<unknown[]> {
  const torture = await Torture.connect(base, { room: 7 });
  const seen: unknown[] = [];
  const events: unknown[] = [];
  torture.on("seen", (event) => { const big: string = event.big; if (big) events.push(event); });
  for (const one of [full, short]) {
    const answer: EverythingOutput = await torture.everything(one);
    seen.push(answer);
  }
  const asked: Repeat = { everything: full, times: 2 };
  for await (const one of torture.repeat(asked)) seen.push(one.nested.right?.[0]?.left.x === 1 ? one : null);
  try { await torture.fail({ name: "n" }); } catch (error) {
    if (error instanceof RemoteError && Torture.failed(error, "wrong"))
      seen.push([error.code, error.detail.node.children[0]?.name, error.detail.color]);
  }
  const shape = await torture.circle({ kind: "circle", radius: 1 });
  seen.push(shape?.kind === "circle" ? shape.radius : null, await torture.square({ kind: "square", side: 1 }));
  torture.close();
  return [seen, events];
}
"""
USE_PY = """
from __future__ import annotations
import asyncio, json, sys
from client import Cat, EverythingInput, Circle, Fail, RemoteError, Repeat, Seen, Square, Torture

async def main(base: str, full: str, short: str) -> list[object]:
    seen: list[object] = []
    events: list[object] = []
    async with Torture(base, room=7) as torture:
        for text in (full, short):
            answer = await torture.everything(EverythingInput.model_validate_json(text))
            seen.append(answer.model_dump(mode="json", by_alias=True))
        everything = EverythingInput.model_validate_json(full)
        everything.pet = Cat(name="kitty")  # its kind is a constant
        async with torture.repeat(Repeat(everything=everything, times=2)) as items:
            async for item in items:
                seen.append(item.model_dump(mode="json", by_alias=True))
        try:
            await torture.fail(Fail(name="n"))
        except RemoteError as error:
            seen.append([error.code, error.detail.node.children[0].name, error.detail.color])
        shape = await torture.circle(Circle(kind="circle", radius=1))
        seen.append(shape.radius if isinstance(shape, Circle) else None)
        seen.append(await torture.square(Square(kind="square", side=1)))
        async for event in torture:
            if isinstance(event, Seen):
                events.append(event.model_dump(mode="json", by_alias=True))
            if len(events) == 2:
                break
    return [seen, events]

if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:])), default=str))
"""


def written(sent: dict[str, Any]) -> dict[str, Any]:
    """The same message as Python writes it."""
    made: dict[str, Any] = json.loads(Everything.model_validate_json(json.dumps(sent)).model_dump_json(by_alias=True))
    return made


def judged_equal(said: str) -> None:
    seen, events = json.loads(said)
    full, short = written(SENT), written(SHORT)
    assert seen == [full, short, full, full, REMOTE, 1, None]
    assert events == [{"type": "seen", **full}, {"type": "seen", **short}]


async def output(*command: str, cwd: Path) -> str:
    done = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await done.communicate()
    assert done.returncode == 0, wrong.decode()
    return said.decode()


OPERATIONS = {"heartbeat": "events", "seen": "events"}


def placed(frames: list[list[Any]]) -> list[dict[str, Any]]:
    """Each frame with its operation and side, as ajv is to judge it."""
    asked: dict[Any, str] = {}
    seen = []
    for outwards, frame in frames:
        if outwards:
            operation = frame["type"] if frame["type"] not in ("circle", "square") else "either"
            asked[frame.get("ref")] = operation
            seen.append({"operation": f"torture.{operation}", "side": "receive", "payload": frame})
        elif frame["type"] in OPERATIONS:
            seen.append({"operation": "torture.events", "side": "send", "payload": frame})
        else:
            seen.append({"operation": f"torture.{asked[frame['ref']]}", "side": "reply", "payload": frame})
    return seen


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`use.js` and `client.js`: modules for Node.js and for pages alike."""
    folder = tmp_path_factory.mktemp("compiled")
    await generated("typescript", folder, app=APP)
    use = folder / "use.ts"
    use.write_text(USE_TS)
    for version in ("typescript5", "typescript"):
        check([use], "--outDir", str(folder), typescript=version)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


async def test_in_typescript_everything_arrives_as_it_was_and_each_frame_fits(compiled: Path) -> None:
    async with run(APP) as server:
        script = f"""
            const Base = globalThis.WebSocket ?? (await import("{(tools() / "ws" / "wrapper.mjs").as_uri()}")).default;
            const frames = [];
            globalThis.WebSocket = class extends Base {{
              constructor(...given) {{
                super(...given);
                this.addEventListener("message", ({{ data }}) => frames.push([false, JSON.parse(data)]));
              }}
              send(text) {{ frames.push([true, JSON.parse(text)]); super.send(text); }}
            }};
            const {{ main }} = await import("{(compiled / "use.js").as_uri()}");
            const said = await main("{server.http_url}", {json.dumps(SENT)}, {json.dumps(SHORT)});
            console.log(JSON.stringify([said, frames]));
        """
        said, frames = json.loads(await output("node", "--input-type=module", "-e", script, cwd=compiled))
    judged_equal(json.dumps(said))
    assert {frame["type"] for _, frame in frames} >= {
        "everything",
        "reply",
        "item",
        "end",
        "error",
        "seen",
        "heartbeat",
    }
    document = document_of(app).content()
    assert complaints([{"name": "torture", "document": document, "frames": placed(frames)}]) == []


async def fulfilled(file: Path, route: Route) -> None:
    await route.fulfill(path=file)


async def test_in_a_browser_everything_arrives_as_it_was(compiled: Path, browser: Browser) -> None:
    page = await browser.new_page()
    async with run(APP) as server:
        for name in ("use.js", "client.js"):
            await page.route(f"{server.http_url}/{name}", functools.partial(fulfilled, compiled / name))
        # A page of the server's own: one from nowhere is to ask its user before it connects to this machine.
        await page.goto(f"{server.http_url}/asyncapi")
        script = "async (given) => (await import('/use.js')).main(...given)"
        said = await page.evaluate(script, [server.http_url, SENT, SHORT])
    judged_equal(json.dumps(said))


async def test_in_python_everything_arrives_as_it_was(tmp_path: Path, other_python: Path) -> None:
    await generated("python", tmp_path, app=APP)
    (tmp_path / "use.py").write_text(USE_PY)
    async with run(APP) as server:
        command = (str(other_python), "use.py", server.http_url, json.dumps(SENT), json.dumps(SHORT))
        judged_equal(await output(*command, cwd=tmp_path))
    text = (tmp_path / "client.py").read_text()
    assert len(re.findall(r"^    price: decimal\.Decimal$", text, re.MULTILINE)) >= 2, "in both directions: no float"
