"""Messages of an application with the names of the hub's own events: generated clients still have them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.clients.test_generated import generated
from tests.commands import run
from tests.node import tools
from tests.node.compile import check

APP = Path(__file__).parent / "common_names.py"

USE_TS = """
import { Flat, Placed } from "./client.js";
const next = <T>(listen: (tell: (event: T) => void) => unknown): Promise<T> => new Promise((done) => { listen(done); });
export async function main(base: string): Promise<unknown[]> {
  const flat = await Flat.connect(base, { room: "7" });
  const message = next<{ text: string }>((tell) => flat.on("message", tell));
  const joined = next<{ name: string }>((tell) => flat.on("joined", tell));
  const beat = next<{ load: number }>((tell) => flat.on("heartbeat", tell));
  await flat.message({ text: "a" });
  await flat.joined({ name: "b" });
  await flat.heartbeat({ load: 0.5 });
  const seen: unknown[] = [(await message).text, (await joined).name, (await beat).load];
  flat.close();
  const placed = new Placed(base, { room: "7" });
  const entered = next<string>((tell) => placed.on("joined", ({ topic }) => tell(topic)));
  const data: string[] = [];
  const both = next<void>((tell) => placed.on("message", (event) => {
    if (event.data.type === "message") data.push(event.data.text);
    else if (event.data.type === "joined") data.push(event.data.name);
    if (data.length === 2) tell();
  }));
  await placed.opened();
  await placed.message({ text: "c" });
  await placed.joined({ name: "d" });
  await both;
  placed.close();
  return [...seen, await entered, ...data];
}
"""
USE_PY = """
import asyncio, json, sys
from client import Flat, Heartbeat, Joined, Message, Placed

async def main(base):
    async with Flat(base, room="7") as flat:
        await flat.message(Message(text="a"))
        await flat.joined(Joined(name="b"))
        await flat.heartbeat(Heartbeat(load=0.5))
        events = [await anext(flat) for _ in range(3)]
    async with Placed(base, room="7") as placed:
        await placed.message(Message(text="c"))
        await placed.joined(Joined(name="d"))
        events += [await anext(placed) for _ in range(2)]
    return [event.model_dump(mode="json") for event in events]

print(json.dumps(asyncio.run(main(sys.argv[1]))))
"""


async def printed(folder: Path, *command: str) -> tuple[object, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=pipe, stderr=pipe)
    said, told = await process.communicate()
    return json.loads(said or "null"), told.decode()


async def test_in_javascript_and_its_types(tmp_path: Path) -> None:
    await generated("javascript", tmp_path, app=APP)
    (tmp_path / "use.ts").write_text(USE_TS)
    check([tmp_path / "use.ts"], "--outDir", str(tmp_path))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    ws = (tools() / "ws" / "wrapper.mjs").as_uri()
    async with run(APP) as server:
        script = f"""
            globalThis.WebSocket ??= (await import("{ws}")).default;
            const {{ main }} = await import("{(tmp_path / "use.js").as_uri()}");
            console.log(JSON.stringify(await main("{server.http_url}")));
        """
        seen = await printed(tmp_path, "node", "--input-type=module", "-e", script)
    assert seen == (["a", "b", 0.5, "room/7", "c", "d"], "")


async def test_in_python(tmp_path: Path) -> None:
    await generated("python", tmp_path, app=APP)
    (tmp_path / "use.py").write_text(USE_PY)
    async with run(APP) as server:
        events, told = await printed(tmp_path, sys.executable, "use.py", server.http_url)
    assert events == [
        {"type": "message", "text": "a"},
        {"type": "joined", "name": "b"},
        {"type": "heartbeat", "load": 0.5},
        {"type": "message", "text": "c"},
        {"type": "joined", "name": "d"},
    ]
    assert told == "", "a warning about the hub's own events"


ONE_CLASS = """
from pydantic import BaseModel
from antiphon import App, WebSocket

class Bid(BaseModel):
    lot: str
    cents: int

class Word(BaseModel):
    text: str

app = App()

@app.channel("/auction", sends=Bid | Word)
async def auction(websocket: WebSocket):
    await websocket.accept()
    yield

@auction.on
async def place(message: Bid) -> list[Bid]:
    return [message]

@auction.on
async def say(message: Word) -> Bid:
    return Bid(lot=message.text, cents=1)
"""


async def test_a_class_that_is_request_event_and_answer_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "one_class.py").write_text(ONE_CLASS)
    await generated("typescript", tmp_path, app=tmp_path / "one_class.py")
    await generated("python", tmp_path, app=tmp_path / "one_class.py")
    typescript, python = ((tmp_path / f"client.{suffix}").read_text() for suffix in ("ts", "py"))
    assert re.findall(r"interface ((?:Bid|Word)\w*)", typescript) == ["Bid", "Word"]
    assert '  bid: Bid & { readonly type: "bid" };' in typescript
    assert "Promise<readonly Bid[]>" in typescript
    models: dict[str, Any] = {}
    exec(python, models)
    fields = {"lot": "7", "cents": 1}
    event = models["Auction"].events["bid"].validate_python({"type": "bid", **fields})
    assert isinstance(event, models["Bid"])
    assert event.model_dump() == {"type": "bid", **fields}
    assert models["Bid"].model_validate(fields).model_dump() == fields
    assert "def bid(self, message: Bid," in python
    assert "-> list[Bid]:" in python
