"""The JavaScript runtime, alone: events, requests, streams, losses and hostile servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.browser.cable import Cable
from tests.node.compile import CLIENTS
from tests.serving import ServedProcess

from .drivers import Driver, ScriptError, node
from .hostile import HOSTILE
from .scripted import RETURNS, Scripted, joined, message

pytestmark = pytest.mark.asyncio(loop_scope="session")


TIMED_OUT_BEHIND_A_SIGN_OF_LIFE = """
  const real = globalThis.setTimeout;
  let over;
  globalThis.setTimeout = (f) => { over = f; };
  const silent = client.request('silence', {}, { timeout: 100 });
  globalThis.setTimeout = real;
  await client.request('say', { text: '' });
  over();
  return silent;
"""
"""A request that times out in total silence gives the link up, and a slow server may be silent for so long."""

# --- requests, events, streams ---------------------------------------------------------------------------------------


async def test_a_request_is_answered_and_events_come_in_between(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    await driver.run("client.on('said', (said, message) => driven.log.push(said.text))")
    assert await driver.run("return client.request('say', { text: 'hello' })") == 5
    assert (await driver.run("return driven.log"))[-1] == "hello"
    assert await driver.events() == [{"type": "said", "text": "hello"}]


async def test_an_error_comes_with_its_code_and_its_detail(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    with pytest.raises(ScriptError, match="be quiet") as error:
        await driver.run("return client.request('fail')")
    assert (error.value.name, error.value.code, error.value.detail) == ("RemoteError", "muted", {"seconds": 30})
    assert await driver.run("return client.request('say', { text: 'ok' })") == 2


async def test_a_request_without_an_answer_times_out_and_is_taken_back(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    with pytest.raises(ScriptError) as error:
        await driver.run(TIMED_OUT_BEHIND_A_SIGN_OF_LIFE)
    assert error.value.code == "timeout"
    got = (await driver.run("return client.request('got')"))["messages"]
    assert [message["type"] for message in got] == ["silence", "say", "cancel", "got"]
    assert got[0]["ref"] == got[2]["ref"]


async def test_an_aborted_request_rejects_with_the_reason(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    with pytest.raises(ScriptError, match="enough"):
        await driver.run(
            "const ac = new AbortController(); setTimeout(() => ac.abort(new Error('enough')), 50);"
            "return client.request('silence', {}, { signal: ac.signal })"
        )
    with pytest.raises(ScriptError, match="before"):
        await driver.run("return client.request('say', {}, { signal: AbortSignal.abort(new Error('before')) })")
    types = [message["type"] for message in (await driver.run("return client.request('got')"))["messages"]]
    assert types == ["silence", "cancel", "got"]


async def test_a_stream_gives_every_item_in_order_and_ends(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    code = (
        "const all = []; for await (const item of client.stream('search', { count: 300 })) all.push(item.n); return all"
    )
    assert await driver.run(code) == list(range(300))


async def test_to_leave_the_loop_cancels_the_stream(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    await driver.run("for await (const { n } of client.stream('search', { count: 1e6 })) if (n === 4) break;")
    await driver.until("(await client.request('got')).over === 1")
    assert await driver.run("return client.request('say', { text: 'still here' })") == 10


async def test_a_stream_that_nobody_iterates_was_never_asked_for(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    await driver.run("const hits = client.stream('search', { count: 5 }); await hits.return()")
    assert [m["type"] for m in (await driver.run("return client.request('got')"))["messages"]] == ["got"]


async def test_a_stream_that_is_not_read_is_given_up_and_costs_no_more_memory(
    driver: Driver, server: ServedProcess
) -> None:
    await driver.opened(f"{server.url}/talk")
    await driver.run("driven.hits = client.stream('search', { count: 1e6, size: 100_000 }); await driven.hits.next();")
    await driver.until("(await client.request('got')).over === 1")
    with pytest.raises(ScriptError) as error:
        await driver.run("for await (const hit of driven.hits);")
    assert error.value.code == "too_slow"


# --- the close code decides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1008, 3003, 4000, 4999])
async def test_a_code_that_means_no_ends_it_for_good(driver: Driver, server: ServedProcess, code: int) -> None:
    await driver.open(f"{server.url}/closes/{code}?reason=because")
    await driver.until("client.state.name === 'closed'")
    assert await driver.state() == {"name": "closed", "code": code, "reason": "because"}
    with pytest.raises(ScriptError, match=f"{code} because") as error:
        await driver.run("await client.opened()")
    assert error.value.code == "closed"
    assert not await driver.run("return client.send('x', { queue: true })")
    await driver.run("client.retry(); client.reconnect(); client.close()")
    assert (await driver.run("return driven.log"))[-1] == "closed"


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3008, 4001])
async def test_after_other_codes_it_comes_back(driver: Driver, server: ServedProcess, code: int) -> None:
    await driver.open(f"{server.url}/closes/{code}", "{ retry: [4001] }")
    await driver.until("driven.states.filter(({ name }) => name === 'waiting').length >= 2")
    waiting = [state for state in await driver.run("return driven.states") if state["name"] == "waiting"]
    assert waiting[0]["code"] == code
    assert [state["attempt"] for state in waiting[:2]] == [1, 2]


async def test_delays_grow_with_each_loss_of_a_connection_that_did_not_last(server: ServedProcess) -> None:
    async with node() as driver:
        await driver.run("Math.random = () => 1; driven.times = []")
        await driver.open(f"{server.url}/closes/1011")
        await driver.run("client.watch((s) => s.name === 'waiting' && driven.times.push(s.until - Date.now()))")
        await driver.until("driven.times.length >= 3")
        times = (await driver.run("return driven.times"))[:3]
        assert [round(time, -2) for time in times] == [500, 1000, 2000]


# --- losses ----------------------------------------------------------------------------------------------------------


async def test_a_request_in_progress_fails_when_the_connection_is_lost_and_is_not_sent_again(
    driver: Driver, server: ServedProcess
) -> None:
    async with Cable(server.port) as cable:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/talk", "{ queue: true }")
        await driver.run("driven.lost = client.request('silence').catch((error) => error.code)")
        await driver.run("await client.request('got')")
        await cable.cut()
        assert await driver.run("return driven.lost") == "closed"
        await cable.mend()
        got = await driver.run("return client.request('got')")
        assert [message["type"] for message in got["messages"]] == ["got"]


async def test_away_a_message_fails_at_once_or_waits_in_order_as_the_caller_says(
    driver: Driver, server: ServedProcess
) -> None:
    async with Cable(server.port) as cable:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/talk", "{ queueLimit: 3 }")
        await cable.cut()
        await driver.until("client.state.name === 'waiting'")
        assert await driver.run("return client.send({ type: 'say', text: 'never' })") is False
        with pytest.raises(ScriptError, match="no connection") as error:
            await driver.run("return client.request('say', { text: 'never' })")
        assert error.value.code == "closed"
        with pytest.raises(ScriptError) as error:
            await driver.run("return client.request('say', { text: 'late' }, { queue: true, timeout: 50 })")
        assert error.value.code == "timeout"
        assert await driver.run(
            "driven.one = client.request('say', { text: 'one' }, { queue: true });"
            "driven.kept = [client.send({ type: 'say', text: 'two' }, { queue: true }),"
            "  client.send({ type: 'say', text: 'three' }, { queue: true }),"
            "  client.send({ type: 'say', text: 'full' }, { queue: true })]; return driven.kept"
        ) == [True, True, False]
        await cable.mend()
        assert await driver.run("return driven.one") == 3
        texts = [m.get("text") for m in (await driver.run("return client.request('got')"))["messages"]]
        assert texts == ["one", "two", "three", None]


async def test_a_link_that_swallows_everything_is_noticed_within_seconds_and_left(
    driver: Driver, server: ServedProcess
) -> None:
    async with Cable(server.port) as cable:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/rooms/a")
        await driver.until("driven.events.some(({ type }) => type === 'joined')")
        cable.stall()
        stalled = asyncio.get_running_loop().time()
        await driver.until("driven.states.some((state) => state.silent)")
        await driver.until("client.state.name !== 'open'")
        noticed = asyncio.get_running_loop().time() - stalled
        lost = next(s for s in await driver.run("return driven.states") if s["name"] == "waiting")
        assert (lost["code"], lost["reason"]) == (1006, "the server did not answer any more")
        cable.flow()
        await driver.until("client.state.name === 'open'")
        assert noticed < 20, noticed  # two heartbeats of one second, on an idle machine


async def test_a_silence_that_ends_in_time_is_forgotten(driver: Driver, server: ServedProcess) -> None:
    async with Cable(server.port) as cable:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/says")
        await driver.run('client.send({ frames: [\'{"type": "heartbeat", "interval": 30}\', \'{}\'] })')
        await driver.until("driven.events.length")
        await driver.run("const now = Date.now; Date.now = () => now() + 50_000; driven.now = now")  # as after a sleep
        await driver.until("client.state.silent")
        await driver.run("Date.now = driven.now; client.send({ frames: ['{}'] })")
        await driver.until("client.state.silent === false")
        assert "waiting" not in await driver.run("return driven.log")


async def test_a_request_that_times_out_in_total_silence_gives_the_link_up(
    driver: Driver, server: ServedProcess
) -> None:
    async with Cable(server.port) as cable:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/talk")  # has no heartbeat
        cable.stall()
        await driver.run("return client.request('say', { text: '' }, { timeout: 100 }).catch(() => {})")
        assert "waiting" in await driver.run("return driven.log")
        cable.flow()
        await driver.until("client.state.name === 'open'")


async def test_an_attempt_that_nobody_answers_is_given_up_for_another(server: ServedProcess) -> None:
    async with Cable(server.port) as cable, node() as driver:
        cable.stall()
        await driver.open(f"ws://127.0.0.1:{cable.port}/talk")
        await driver.until("client.state.name === 'waiting'")
        cable.flow()
        await driver.run("await client.opened()")


async def test_a_token_is_asked_for_anew_for_each_attempt(driver: Driver, server: ServedProcess) -> None:
    await driver.open(
        f"{server.url}/token", "{ token: async () => { if (globalThis.n === 2) { n++; throw new Error('no token'); } "
        "return `secret ${globalThis.n = (globalThis.n ?? 0) + 1}`; } }"
    )  # fmt: skip
    for number in (1, 2, 4):
        await driver.until("driven.events.length")
        assert (await driver.events())[-1]["seen"][-1] == f"secret {number}"
        await driver.run("driven.events.length = 0; client.send('again')")
    states = await driver.run("return driven.states")
    assert "no token" in [state.get("reason") for state in states]


# --- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", RETURNS)
async def test_it_returns_with_the_place_it_has_reached(script: str) -> None:
    frames, query = RETURNS[script]
    async with Scripted() as server, node() as driver:
        server.frames = [frames]
        await driver.open(server.url)
        await driver.until_true(lambda: _true(len(server.queries) > 1))
        assert server.queries == ["", query]


async def _true(value: bool) -> bool:
    return value


async def test_which_topics_place_goes_where_can_be_said(driver: Driver) -> None:
    async with Scripted() as server:
        server.frames = [[joined(3, topic="news"), joined(9), message(10)]]  # later connections are kept
        await driver.open(server.url, "{ resume: { from: 'room/*', news: 'news', other: 'other' } }")
        await driver.until_true(lambda: _true(len(server.queries) > 1))
        assert server.queries[1] == "from=10-e&news=3-e"
        assert await driver.run("return client.positions") == {"news": "3-e", "room/a": "10-e"}
        await driver.open(server.url, "{ resume: null, positions: { news: '3-e' } }")
        await driver.until_true(lambda: _true(len(server.queries) > 2))
        assert server.queries[2] == ""
        await driver.open(server.url, "{ positions: { news: '3-e', bad: 'x' } }")
        await driver.until_true(lambda: _true(len(server.queries) > 3))
        assert server.queries[3] == "since=3-e"


async def test_what_came_before_is_dropped_by_its_place_and_a_new_start_is_not(driver: Driver) -> None:
    async with Scripted() as server:
        server.frames = [
            [joined(1), message(1), message(2), message(2), message(1)],
            [joined(4, recovered=True), message(2), message(3), message(4), message(5)],
            [joined(9), message(4), message(9)],
            [joined(9, epoch="f"), message(3, epoch="f")],
        ]
        await driver.open(server.url)
        await driver.until("driven.recovered.length === 3 && driven.events.at(-1).type === 'message'")
        events = [(event["offset"], event["epoch"]) for event in await driver.events("message")]
        assert events == [(1, "e"), (2, "e"), (3, "e"), (4, "e"), (5, "e"), (4, "e"), (9, "e"), (3, "f")]
        assert await driver.run("return driven.recovered.map(({ recovered }) => recovered)") == [True, False, False]


async def test_what_is_published_is_told_under_its_own_type_too_unless_that_is_the_hubs(driver: Driver) -> None:
    async with Scripted() as server:
        server.frames = [
            [joined(0), message(1, data={"type": "said", "text": "hi"}), message(2, data={"type": "joined"})]
        ]
        await driver.run(
            f"driven.open({json.dumps(server.url)}); driven.heard = [];"
            "for (const type of ['said', 'joined', 'message'])"
            "  driven.client.on(type, ({ text }, around) =>"
            "    driven.heard.push([type, text ?? null, around?.offset ?? null]))"
        )
        await driver.until("driven.heard.length >= 4")
        assert await driver.run("return driven.heard") == [
            ["joined", None, None],
            ["message", None, None],
            ["said", "hi", 1],
            ["message", None, None],
        ]


async def test_a_resync_is_told_as_not_recovered(driver: Driver) -> None:
    async with Scripted() as server:
        server.frames = [[joined(1), message(1), {"type": "resync", "topic": "room/a"}]]
        await driver.open(server.url)
        await driver.until("driven.recovered.length")
        assert await driver.run("return driven.recovered") == [{"topic": "room/a", "recovered": False}]


def diff(joins: dict[str, Any], leaves: dict[str, Any], topic: str = "room/a", **updates: Any) -> dict[str, Any]:
    return {"type": "presence_diff", "topic": topic, "joins": joins, "leaves": leaves, "updates": updates}


async def test_members_are_told_as_they_are_and_begin_anew_where_a_topic_is_joined(driver: Driver) -> None:
    async with Scripted() as server:
        server.frames = [
            [joined(1), diff({"ann": [1], "bob": [2]}, {}), diff({"cid": [3]}, {"bob": [2]}, ann=[1, 4])],
            [
                joined(1, recovered=True),
                diff({"dan": [5]}, {}),
                joined(1),
                diff({"eve": [6]}, {}),
                diff({"x": [7]}, {}, "b"),
            ],
            [diff({"fay": [8]}, {}), {"type": "presence_diff", "topic": "room/a", "joins": {"bad": 1}}],
        ]
        await driver.run(
            f"driven.open({json.dumps(server.url)}); driven.members = [];"
            "driven.client.onPresence((members, topic) => driven.members.push([topic, Object.fromEntries(members)]))"
        )
        await driver.until("driven.members.length >= 7")
        assert await driver.run("return driven.members") == [
            ["room/a", {"ann": [1], "bob": [2]}],
            ["room/a", {"ann": [1, 4], "cid": [3]}],
            ["room/a", {"dan": [5]}],
            ["room/a", {"eve": [6]}],
            ["b", {"x": [7]}],
            ["room/a", {"fay": [8]}],
            ["room/a", {"fay": [8]}],
        ]


# --- hostile servers and careless pages ------------------------------------------------------------------------------


async def test_nothing_that_a_server_sends_gets_out_of_hand(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/says")
    frames = json.dumps([*HOSTILE, '{"type":"over"}'])
    await driver.run(f"driven.frames = {frames}; client.on('__proto__', () => driven.log.push('proto'))")
    await driver.run("client.send({ frames: driven.frames, bytes: [1, 2, 3] })")
    await driver.until("Array.isArray(driven.events.at(-1)) && driven.events.at(-1).length === 3")
    assert await driver.run("return driven.events.some((event) => event?.type === 'over')")
    assert await driver.run("return driven.log") == ["connecting", "open", "proto"]
    assert await driver.run("return [{}.ref ?? null, client.positions]") == [None, {}]


async def test_a_server_that_names_topics_without_end_is_not_remembered_without_end(
    driver: Driver, server: ServedProcess
) -> None:
    await driver.opened(f"{server.url}/says")
    await driver.run(
        "client.send({ frames: Array.from({ length: 2000 }, (_, n) =>"
        " JSON.stringify({ type: 'message', topic: `t${n}`, offset: 1, epoch: 'e' })).concat('{\"type\":\"over\"}') })"
    )
    await driver.until("driven.events.some((event) => event.type === 'over')")
    assert len(await driver.run("return Object.keys(client.positions)")) == 256


async def test_a_listener_that_throws_is_reported_and_disturbs_nobody(server: ServedProcess) -> None:
    async with node() as driver:
        await driver.run("driven.reported = []; console.error = (error) => driven.reported.push(error.message)")
        await driver.open(f"{server.url}/talk")
        await driver.run(
            "const fail = () => { throw new Error('mine') };"
            "client.watch(fail); client.on('said', fail); client.on('*', fail); await client.opened();"
        )
        assert await driver.run("return client.request('say', { text: 'x' })") == 1
        assert set(await driver.run("return driven.reported")) == {"mine"}


async def test_a_message_without_a_json_form_is_the_callers_error(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/talk")
    for bad in ("() => 1", "undefined", "1n", "(() => { const a = {}; a.a = a; return a })()"):
        with pytest.raises(ScriptError) as error:
            await driver.run(f"return client.send({bad})")
        assert error.value.name == "TypeError"
    assert await driver.run("return client.request('say', { text: 'x' })") == 1


async def test_an_address_that_is_none_is_refused_at_once(driver: Driver) -> None:
    with pytest.raises(ScriptError) as error:
        await driver.open("http://[")
    assert error.value.name in ("TypeError", "SyntaxError")


async def test_a_client_that_is_closed_in_whatever_state_leaves_nothing_behind(server: ServedProcess) -> None:
    """Node.js ends by itself when no timer and no socket is left."""
    script = f"""
        import {{ Client }} from "{(CLIENTS / "runtime.js").as_uri()}";
        const options = globalThis.WebSocket ? {{}} : {{ WebSocket: (await import("ws")).default }};
        const states = [];
        for (const when of ["connecting", "open", "waiting"]) {{
          const client = new Client(when === "waiting" ? "ws://127.0.0.1:1/" : "{server.url}/rooms/a", options);
          client.watch((state) => {{ states.push(state.name); if (state.name === when) client.close(); }});
          const request = client.request("x", {{}}, {{ queue: true, timeout: Infinity }}).catch((error) => error.code);
          await new Promise((done) => client.watch((state) => state.name === "closed" && done()));
          states.push(await request);
        }}
        console.log(states.join(" "));
    """
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "-e", script),
        stdout=asyncio.subprocess.PIPE,
        cwd=CLIENTS.parents[2] / ".cache" / "node",
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.decode().split() == [
        *("connecting", "closed", "closed"),
        *("connecting", "open", "closed", "closed"),
        *("connecting", "waiting", "closed", "closed"),
    ]
