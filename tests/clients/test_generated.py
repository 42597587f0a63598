"""Generated clients: clean under the strictest checkers, wrong use an error, and their messages arrive as typed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from antiphon import App
from antiphon.testclient import TestClient
from tests.commands import antiphon, run
from tests.node import tools
from tests.node.compile import check

HERE = Path(__file__).parent
CHAT = HERE / "chat.py"

USE_TS = """
import { Chat, type Hit } from "./client.js";
export async function main(base: string): Promise<unknown[]> {
  const ann = await Chat.connect(base, { room: "7", name: "ann" }, { signal: AbortSignal.timeout(60_000) });
  const seen: unknown[] = [];
  const said = new Promise<void>((done) => ann.on("said", ({ type, name, text }) => {
    seen.push([type, name, text]);
    done();
  }));
  const length: number = await ann.say({ text: "hi" });
  seen.push(length);
  await said;
  for await (const hit of ann.search({ query: "x" })) {
    const one: Hit = hit;
    seen.push(one);
    if (one.score === 2) break;
  }
  await ann.typing();
  seen.push(await ann.send_());
  try { await ann.say({ text: "mute" }); } catch (error) {
    if (Chat.failed(error, "muted")) { const seconds: number = error.detail.seconds; seen.push(seconds); }
  }
  try { await ann.say({ text: "" }); } catch (error) {
    if (Chat.failed(error, "invalid"))
      for (const { loc, msg } of error.detail) seen.push([error.code, loc[0], msg.length]);
  }
  ann.close();
  return seen;
}
"""
WRONG_TS = [
    'await Chat.connect("", { room: "7" });',
    'ann.on("nothing", () => {});',
    'ann.on("said", (said) => void said.txt);',
    'const text: string = await ann.say({ text: "hi" }); void text;',
    'await ann.say({ txt: "hi" });',
    'for await (const hit of ann.search({ query: "x" })) void hit.name;',
]
USE_PY = """
from __future__ import annotations
import asyncio, json, sys
from typing import assert_never
from client import Chat, Hit, PresenceDiff, Recovered, RemoteError, Resync, Said, Say, Search, Typing

async def main(base: str) -> list[object]:
    seen: list[object] = []
    async with Chat(base, room="7", name="ann") as ann:
        length: int = await ann.say(Say(text="hi"))
        seen.append(length)
        async with ann.search(Search(query="x")) as hits:
            async for hit in hits:
                seen.append(json.loads(hit.model_dump_json(by_alias=True)))
                if hit.score == 2:
                    break
        await ann.typing()
        name: str = await ann.send_()
        seen.append(name)
        for text in ("mute", ""):
            try:
                await ann.say(Say(text=text))
            except RemoteError as error:
                seen.append(error.detail.seconds if error.code == "muted" else error.code)
        async for event in ann:
            match event:
                case Said(name=name, text=text):
                    seen.append([event.type, name, text])
                    break
                case Typing() | PresenceDiff() | Resync() | Recovered():
                    pass
                case _:
                    assert_never(event)
    return seen

if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
"""
AUTH_TS = """
import { Account } from "./client.js";
export async function main(base: string): Promise<unknown> {
  let asked = 0;
  const account = await Account.connect(base, {}, { token: () => `ann-${5 + asked++ / 100}` });
  const left = await new Promise<number>((done) => account.on("auth_expiring", ({ expires_in }) => done(expires_in)));
  const { expires_in }: { readonly expires_in: number | null } = await account.auth({ token: "ann-60" });
  account.close();
  return left < 3 && expires_in !== null && expires_in > 50;
}
"""
AUTH_PY = """
from __future__ import annotations
import asyncio, json, sys
from client import Account, Auth, AuthExpiring, AuthRenewed

async def main(base: str) -> bool:
    async with Account(base.replace("http", "ws"), token="ann-5") as account:
        async for event in account:
            expiring: AuthExpiring = event
            renewed: AuthRenewed = await account.auth(Auth(token="ann-60"))
            return expiring.expires_in < 3 and renewed.expires_in is not None and renewed.expires_in > 50
    return False

if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
"""
NODE = {"value": 1, "children": [{"value": 2, "children": []}]}
HITS = [
    {"text": f"x {n}", "score": n, "at": None, "colour": "red", "pair": [1, "a"], "counts": {"a": 1}, "node": NODE,
     "class": "x"}
    for n in range(3)
]  # fmt: skip


async def generated(language: str, folder: Path, *more: str, app: Path = CHAT) -> None:
    done = await antiphon("client", str(app), "--language", language, "-o", str(folder), *more)
    assert done.code == 0, done.stderr


def checked(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("typescript", ["typescript", "typescript5"])
@pytest.mark.parametrize("language", ["typescript", "javascript"])
async def test_a_generated_client_and_its_use_are_clean_under_strict_typescript(
    tmp_path: Path, language: str, typescript: str
) -> None:
    await generated(language, tmp_path)
    use = tmp_path / "use.ts"
    use.write_text(USE_TS)
    bad = []
    for number, wrong in enumerate(WRONG_TS):
        bad.append(tmp_path / f"wrong{number}.ts")
        bad[-1].write_text(f'import {{ Chat }} from "./client.js";\nexport async function f(ann: Chat) {{ {wrong} }}\n')
    with pytest.raises(RuntimeError) as told:
        check([use, *bad], "--noEmit", typescript=typescript)
    errors = re.findall(r"(\w+\.ts)\(\d+,\d+\): error TS", str(told.value))
    assert set(errors) == {file.name for file in bad}, "what is let through, or what is refused and right"


async def test_the_module_does_in_node_what_its_types_say(tmp_path: Path) -> None:
    await generated("javascript", tmp_path)
    (tmp_path / "use.ts").write_text(USE_TS)
    check([tmp_path / "use.ts"], "--outDir", str(tmp_path))
    ws = (tools() / "ws" / "wrapper.mjs").as_uri()
    async with run(CHAT) as server:
        script = f"""
            globalThis.WebSocket ??= (await import("{ws}")).default;
            const {{ main }} = await import("{(tmp_path / "use.js").as_uri()}");
            console.log(JSON.stringify(await main("{server.http_url}")));
        """
        (tmp_path / "package.json").write_text('{"type": "module"}')
        node = await asyncio.create_subprocess_exec(
            *("node", "--input-type=module", "-e", script), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await node.communicate()
    seen = json.loads(said)
    assert ["said", "ann", "hi"] in seen
    seen.remove(["said", "ann", "hi"])
    assert seen == [2, *HITS, "ann", 30, ["invalid", "text", len("String should have at least 1 character")]]


async def test_a_generated_python_client_does_what_its_types_say_where_there_is_no_antiphon(
    tmp_path: Path, other_python: Path
) -> None:
    await generated("python", tmp_path)
    (tmp_path / "use.py").write_text(USE_PY)
    async with run(CHAT) as server:
        done = await asyncio.create_subprocess_exec(
            *(other_python, "-W", "error", "use.py", server.http_url), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await done.communicate()
    assert json.loads(said) == [2, *HITS, "ann", 30, "invalid", ["said", "ann", "hi"]]


async def test_the_messages_of_renewal_are_typed_where_a_dependency_verifies(tmp_path: Path) -> None:
    app = HERE / "app.py"
    await generated("javascript", tmp_path, app=app)
    await generated("python", tmp_path, app=app)
    (tmp_path / "use.ts").write_text(AUTH_TS)
    (tmp_path / "use.py").write_text(AUTH_PY)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    check([tmp_path / "use.ts"], "--outDir", str(tmp_path))
    async with run(app) as server:
        script = f"""
            globalThis.WebSocket ??= (await import("{(tools() / "ws" / "wrapper.mjs").as_uri()}")).default;
            const {{ main }} = await import("{(tmp_path / "use.js").as_uri()}");
            console.log(JSON.stringify(await main("{server.http_url}")));
        """
        for command in (("node", "--input-type=module", "-e", script), (sys.executable, "use.py", server.http_url)):
            done = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
            said, _ = await done.communicate()
            assert json.loads(said) is True


async def test_a_prefix_stands_before_all_names_and_documents_come_from_files_and_servers_too(tmp_path: Path) -> None:
    document = tmp_path / "asyncapi.json"
    document.write_text((await antiphon("asyncapi", str(CHAT))).stdout)
    async with run(CHAT) as server:
        for number, source in enumerate((str(CHAT), str(document), f"{server.http_url}/asyncapi.json")):
            folder = tmp_path / str(number)
            done = await antiphon("client", source, "--language", "python", "-o", str(folder), "--prefix", "My")
            assert done.code == 0, done.stderr
    texts = [(tmp_path / str(number) / "client.py").read_text() for number in range(3)]
    assert texts[0] == texts[1] == texts[2]
    assert "class MyChat(" in texts[0]
    assert "class MySaid(" in texts[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "is no AsyncAPI document"),
        ("{}", "version 3"),
        ('{"asyncapi": "3.0.0"}', "no channels"),
        ('{"asyncapi": "3.0.0", "channels": {"x": {}}}', "antiphon made"),
        (
            '{"asyncapi": "3.0.0", "channels": {"x": {"address": "/x", "x-antiphon": {"wire": {"tag": "action"}}}}}',
            "wire",
        ),
    ],
)
async def test_a_document_of_which_no_client_can_be_made_is_named_with_the_reason(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "document.json"
    path.write_text(text)
    done = await antiphon("client", str(path), "--language", "typescript", "-o", str(tmp_path))
    assert done.code != 0
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_app_serves_the_client_of_its_own_channels_with_its_types() -> None:
    async with run(CHAT) as server:
        texts = []
        for name in ("client.js", "client.d.ts"):
            answer = await asyncio.to_thread(urllib.request.urlopen, f"{server.http_url}/asyncapi/{name}")
            assert answer.headers["content-type"].startswith("text/javascript")
            texts.append(answer.read().decode())
    assert "export class Chat extends Client {" in texts[0]
    assert "export declare class Chat extends Client<ChatEvents> {" in texts[1]


def test_an_app_without_channels_or_without_the_wish_serves_none() -> None:
    for app in (App(), App(client_url=None)):
        assert TestClient(app).get("/asyncapi/client.js").status_code == 404
    with pytest.raises(ValueError, match=r"ends with '\.js'"):
        App(client_url="/client")
