"""Dependencies with `yield`: the time of their end, the exceptions they see, and the effect of their end on an
exception."""

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import fastapi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from antiphon.dependencies import Depends, Kind, Query, analyze, solve
from antiphon.dependencies.params import Depends as DependsMarker
from antiphon.exceptions import GeneratorError, HTTPException, ParameterErrors
from tests.patience import PATIENCE

from .support import scope, websocket


async def nothing() -> None: ...


def noting(log: list[str], name: str, *, sync: bool) -> Callable[..., Any]:
    def sync_dependency() -> Iterator[str]:
        log.append(f"enter {name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} saw {type(error).__name__}")
            raise
        finally:
            log.append(f"leave {name}")

    async def async_dependency() -> AsyncIterator[str]:
        log.append(f"enter {name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} saw {type(error).__name__}")
            raise
        finally:
            log.append(f"leave {name}")

    return sync_dependency if sync else async_dependency


@pytest.mark.parametrize("sync", [True, False])
async def test_dependencies_end_in_reverse_and_scope_function_before_scope_request(sync: bool) -> None:
    log: list[str] = []
    dependencies = [
        Depends(noting(log, "f1", sync=sync), scope="function"),
        Depends(noting(log, "r1", sync=sync)),
        Depends(noting(log, "f2", sync=sync), scope="function"),
        Depends(noting(log, "r2", sync=sync), scope="request"),
    ]
    async with solve(analyze(nothing, path="/", dependencies=dependencies), websocket()):
        log.append("endpoint")
    entered = [f"enter {name}" for name in ("f1", "r1", "f2", "r2")]
    assert log == [*entered, "endpoint", "leave f2", "leave f1", "leave r2", "leave r1"]


async def test_the_function_scope_can_end_before_the_response_is_sent() -> None:
    log: list[str] = []
    dependencies = [
        Depends(noting(log, "r", sync=False)),
        Depends(noting(log, "f", sync=True), scope="function"),
    ]
    async with solve(analyze(nothing, path="/", dependencies=dependencies), websocket()) as solved:
        async with solved.function_scope():
            log.append("endpoint")
        log.append("response")
    assert log == ["enter r", "enter f", "endpoint", "leave f", "response", "leave r"]


@pytest.mark.parametrize("sync", [True, False])
async def test_an_exception_of_the_endpoint_is_raised_at_every_yield(sync: bool) -> None:
    log: list[str] = []
    dependencies = [Depends(noting(log, "a", sync=sync)), Depends(noting(log, "b", sync=sync))]
    problem = LookupError("endpoint")
    with pytest.raises(LookupError) as caught:
        async with solve(analyze(nothing, path="/", dependencies=dependencies), websocket()):
            raise problem
    assert caught.value is problem
    assert log[2:] == ["b saw LookupError", "leave b", "a saw LookupError", "leave a"]


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration(), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("sync", [True, False])
async def test_exceptions_that_generators_treat_specially_pass_unchanged(error: BaseException, sync: bool) -> None:
    if sync and isinstance(error, GeneratorExit):
        error = SystemExit()
    log: list[str] = []
    plan = analyze(nothing, path="/", dependencies=[Depends(noting(log, "a", sync=sync))])
    solved = solve(plan, websocket())
    await solved.__aenter__()
    assert await solved.__aexit__(type(error), error, None) is False
    assert log[1] == f"a saw {type(error).__name__}"


async def test_a_replaced_exception_keeps_the_chain_of_contexts() -> None:
    async def inner() -> AsyncIterator[None]:
        try:
            yield
        except LookupError:
            raise ValueError("inner")  # noqa: B904  the context is what is tested

    def outer() -> Iterator[None]:
        try:
            yield
        except ValueError:
            raise TypeError("outer")  # noqa: B904

    plan = analyze(nothing, path="/", dependencies=[Depends(outer), Depends(inner)])
    with pytest.raises(TypeError) as caught:
        async with solve(plan, websocket()):
            raise LookupError("endpoint")
    chain = [caught.value, caught.value.__context__, caught.value.__context__.__context__]  # type: ignore[union-attr]
    assert [str(error) for error in chain] == ["outer", "inner", "endpoint"]


async def test_what_keeps_the_endpoint_from_running_is_raised_even_when_swallowed() -> None:
    log: list[str] = []

    async def swallows() -> AsyncIterator[None]:
        try:
            yield
        except (HTTPException, ParameterErrors) as error:
            log.append(type(error).__name__)

    def refuses() -> None:
        raise HTTPException(401)

    async def endpoint(a: Annotated[None, Depends(swallows)], q: Annotated[int, Query()]) -> None: ...

    with pytest.raises(HTTPException):
        async with solve(analyze(endpoint, path="/", dependencies=[Depends(swallows), Depends(refuses)]), websocket()):
            pytest.fail("the endpoint must not run")
    with pytest.raises(ParameterErrors):
        async with solve(analyze(endpoint, path="/"), websocket()):
            pytest.fail("the endpoint must not run")
    assert log == ["HTTPException", "ParameterErrors"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_second_yield_is_an_error_that_names_the_dependency(fails: bool) -> None:
    def yields_twice_in_a_thread() -> Iterator[int]:
        try:
            yield 1
        except LookupError:
            pass
        yield 2

    async def yields_twice() -> AsyncIterator[int]:
        try:
            yield 1
        except LookupError:
            pass
        yield 2

    for dependency in (yields_twice, yields_twice_in_a_thread):
        solved = solve(analyze(nothing, path="/", dependencies=[Depends(dependency)]), websocket())
        await solved.__aenter__()
        error = LookupError() if fails else None
        with pytest.raises(GeneratorError, match=rf"{dependency.__name__} yielded twice"):
            await solved.__aexit__(type(error) if error else None, error, None)


async def test_no_yield_at_all_is_an_error_that_names_the_dependency() -> None:
    def never() -> Iterator[int]:
        if False:
            yield 1

    async def never_async() -> AsyncIterator[int]:
        if False:
            yield 1

    for dependency in (never, never_async):
        with pytest.raises(GeneratorError, match=rf"{dependency.__name__} did not yield"):
            async with solve(analyze(nothing, path="/", dependencies=[Depends(dependency)]), websocket()):
                pytest.fail("the endpoint must not run")


@pytest.mark.parametrize("sync", [True, False])
async def test_teardown_completes_inside_a_cancelled_scope(sync: bool) -> None:
    log: list[str] = []

    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            log.append("slow done")

    dependencies = [Depends(slow), Depends(noting(log, "n", sync=sync)), Depends(slow, scope="function")]
    plan = analyze(nothing, path="/", dependencies=dependencies)
    with anyio.CancelScope() as cancel:
        async with solve(plan, websocket()):
            cancel.cancel()
            await anyio.sleep_forever()
    assert cancel.cancelled_caught
    assert log[1:] == ["slow done", "n saw CancelledError", "leave n", "slow done"]


async def test_teardown_completes_when_the_task_is_cancelled() -> None:
    log: list[str] = []
    running = asyncio.Event()

    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.01)
            log.append("slow done")

    async def connection() -> None:
        dependencies = [Depends(slow), Depends(noting(log, "n", sync=True))]
        async with solve(analyze(nothing, path="/", dependencies=dependencies), websocket()):
            running.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(connection())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["enter n", "n saw CancelledError", "leave n", "slow done"]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_cancelled_connections_teardown_is_cut_off_in_the_end(
    sync: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # By its module: in the package the name is the function.
    monkeypatch.setattr(sys.modules[solve.__module__], "TEARDOWN_SECONDS", 0.02)
    release = threading.Event()

    async def hangs() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await anyio.sleep_forever()

    def hangs_in_a_thread() -> Iterator[None]:
        try:
            yield
        finally:
            release.wait(10)

    plan = analyze(nothing, path="/", dependencies=[Depends(hangs_in_a_thread if sync else hangs)])
    with caplog.at_level(logging.ERROR, "antiphon.dependencies"), anyio.fail_after(PATIENCE):
        with anyio.CancelScope() as cancel:
            async with solve(plan, websocket()):
                cancel.cancel()
                await anyio.sleep_forever()
    release.set()
    assert cancel.cancelled_caught
    assert "cut off" in caplog.text


async def test_a_dependency_may_hold_a_task_group_around_the_endpoint() -> None:
    log: list[str] = []

    async def ticking() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group
            group.cancel_scope.cancel()
        log.append("group ended")

    async def endpoint(group: Annotated[Any, Depends(ticking)]) -> None: ...

    dependencies = [Depends(noting(log, "n", sync=False))]
    async with solve(analyze(endpoint, path="/", dependencies=dependencies), websocket()) as solved:
        solved.values["group"].start_soon(anyio.sleep_forever)
    assert log == ["enter n", "group ended", "leave n"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_context_variables_of_async_dependencies_reach_the_endpoint_and_those_of_threads_do_not() -> None:
    async def sets() -> None:
        variable.set("async")

    def sets_in_a_thread() -> None:
        assert variable.get() == "async"
        variable.set("thread")

    async with solve(analyze(nothing, path="/", dependencies=[Depends(sets), Depends(sets_in_a_thread)]), websocket()):
        assert variable.get() == "async"


async def test_both_halves_of_a_generator_run_in_one_context() -> None:
    log: list[str] = []

    def sync_dependency() -> Iterator[None]:
        token = variable.set("inside")
        yield
        log.append(variable.get())
        variable.reset(token)

    async def async_dependency() -> AsyncIterator[None]:
        token = variable.set("inside")
        yield
        log.append(variable.get())
        variable.reset(token)

    for dependency in (sync_dependency, async_dependency):
        async with solve(analyze(nothing, path="/", dependencies=[Depends(dependency)]), websocket()):
            pass
    assert log == ["inside", "inside"]


async def test_sync_callables_run_in_threads_and_async_ones_in_the_connections_own() -> None:
    def in_thread() -> int:
        return threading.get_ident()

    def generator_in_thread() -> Iterator[int]:
        yield threading.get_ident()

    async def in_line() -> int:
        return threading.get_ident()

    class Built:
        def __init__(self) -> None:
            self.thread = threading.get_ident()

    async def endpoint(
        a: Annotated[int, Depends(in_thread)],
        b: Annotated[int, Depends(generator_in_thread)],
        c: Annotated[int, Depends(in_line)],
        d: Annotated[Built, Depends()],
    ) -> None: ...

    async with solve(analyze(endpoint, path="/"), websocket()) as solved:
        here = threading.get_ident()
        assert solved.values["c"] == here
        assert here not in {solved.values["a"], solved.values["b"], solved.values["d"].thread}


async def test_leaving_does_not_wait_for_a_free_thread_of_the_pool() -> None:
    log: list[str] = []
    limiter = anyio.to_thread.current_default_thread_limiter()
    plan = analyze(nothing, path="/", dependencies=[Depends(noting(log, "n", sync=True))])
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        with anyio.fail_after(PATIENCE):
            async with solve(plan, websocket()):
                await limiter.acquire()
    finally:
        limiter.release()
        limiter.total_tokens = before
    assert log == ["enter n", "leave n"]


async def test_a_generator_still_entering_when_its_task_is_cancelled_is_left_again() -> None:
    log: list[str] = []
    entering, go_on, left = threading.Event(), threading.Event(), threading.Event()

    def slow_to_enter() -> Iterator[None]:
        entering.set()
        go_on.wait(10)
        try:
            yield
        finally:
            log.append("left")
            left.set()

    async def connection() -> None:
        async with solve(analyze(nothing, path="/", dependencies=[Depends(slow_to_enter)]), websocket()):
            pytest.fail("the endpoint must not run")

    task = asyncio.create_task(connection())
    await asyncio.to_thread(entering.wait, PATIENCE)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)  # by then the leaving waits for the entering
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(left.wait, PATIENCE)
    assert log == ["left"]


@pytest.mark.parametrize("kind", ["async", "sync", "async yield", "sync yield"])
async def test_max_concurrency_bounds_the_runs_of_one_declaration(kind: str) -> None:
    running: list[int] = []
    most: list[int] = []
    gate = threading.Lock()
    two, two_threads = asyncio.Barrier(2), threading.Barrier(2, timeout=PATIENCE)

    def enter() -> None:
        with gate:
            running.append(1)
            most.append(len(running))

    async def plain() -> None:
        enter()
        await two.wait()
        running.pop()

    def in_thread() -> None:
        enter()
        two_threads.wait()
        threading.Event().wait(0.001)  # for a third one, where nothing keeps it out
        running.pop()

    async def yields() -> AsyncIterator[None]:
        enter()
        yield
        running.pop()

    def yields_in_thread() -> Iterator[None]:
        enter()
        yield
        running.pop()

    calls: dict[str, Callable[..., Any]] = {
        "async": plain,
        "sync": in_thread,
        "async yield": yields,
        "sync yield": yields_in_thread,
    }
    plan = analyze(nothing, path="/", dependencies=[Depends(calls[kind], max_concurrency=2)])

    async def connection() -> None:
        async with solve(plan, websocket()):
            if "yield" in kind:
                await two.wait()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(connection() for _ in range(8)))
    assert (len(most), max(most), running) == (8, 2, [])


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_max_concurrency_that_is_no_positive_integer_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        Depends(nothing, max_concurrency=limit)


class Behaviour:
    """A dependency's reaction to an exception, with its scope and kind of generator."""

    def __init__(self, name: str, does: str, life: Any, sync: bool) -> None:
        self.name, self.does, self.life, self.sync = name, does, life, sync

    def __repr__(self) -> str:
        return f"{self.name}:{self.does}:{self.life}:{'sync' if self.sync else 'async'}"

    def dependency(self, log: list[str]) -> Callable[..., Any]:
        def react(error: Exception) -> None:
            log.append(f"{self.name} saw {error!r}")
            if self.does == "replaces":
                raise ValueError(self.name) from error
            if self.does == "passes on":
                raise error

        def end() -> None:
            log.append(f"{self.name} ends")
            if self.does == "fails at the end":
                raise OSError(self.name)

        def in_thread() -> Iterator[None]:
            try:
                yield
            except Exception as error:
                react(error)
            end()

        async def in_line() -> AsyncIterator[None]:
            try:
                yield
            except Exception as error:
                react(error)
            end()

        return in_thread if self.sync else in_line


BEHAVIOURS = st.lists(
    st.builds(
        Behaviour,
        st.sampled_from("abc"),
        st.sampled_from(["swallows", "passes on", "replaces", "fails at the end"]),
        st.sampled_from(["function", "request"]),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=80)
@given(behaviours=BEHAVIOURS, fails=st.booleans())
async def test_any_stack_of_generators_ends_as_in_fastapi(behaviours: list[Behaviour], fails: bool) -> None:
    def endpoint_for(log: list[str]) -> Callable[..., Any]:
        async def endpoint() -> None:
            log.append("endpoint")
            if fails:
                raise LookupError

        return endpoint

    async def ours(log: list[str]) -> None:
        markers = [DependsMarker(each.dependency(log), scope=each.life) for each in behaviours]
        async with solve(analyze(endpoint_for(log), path="/", dependencies=markers), websocket()):
            await endpoint_for(log)()

    async def theirs(log: list[str]) -> None:
        markers = [fastapi.Depends(each.dependency(log), scope=each.life) for each in behaviours]
        app = fastapi.FastAPI(dependencies=markers)
        app.add_api_websocket_route("/", endpoint_for(log))

        async def receive() -> Message:
            raise AssertionError

        async def send(message: Any) -> None:
            raise AssertionError

        await app(scope(Kind.WEBSOCKET), receive, send)

    async def outcome(run: Callable[[list[str]], Any]) -> tuple[list[str], str]:
        log: list[str] = []
        try:
            await run(log)
        except Exception as error:
            return log, repr(error)
        return log, "returned"

    assert await outcome(ours) == await outcome(theirs)
