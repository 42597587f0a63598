"""Runs the plan of a call (`layers.py`): enters and leaves the dependencies of one message of a connection.

Lean, because it runs for each message: values that all calls of a connection share are bound once, and a call costs
only its own dependencies (benchmarks/channel_micro.py). Leaving follows the rules of `solve.py`: reverse order, the
exception of the call at every `yield`, and a bound on the time of a teardown that begins cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
from starlette.background import BackgroundTasks
from starlette.responses import Response

from antiphon.exceptions import GeneratorError
from antiphon.identity import IDENTITY_KEY

from .inspection import GENERATORS, CallKind
from .layers import CallPlan, CallStep
from .lifetimes import ENDED, AsyncLife, Life, LimitLife, SyncLife
from .plan import Call, Injected
from .solve import TEARDOWN_SECONDS, logger, returned_by


class Bound:
    """The plan of a call with one connection's values for it."""

    __slots__ = ("connection", "inputs", "message", "plan", "steps", "target")

    def __init__(self, plan: CallPlan, kept: Sequence[Any], connection: Any, yielded: Any) -> None:
        def constants(step: CallStep) -> dict[str, Any]:
            values = {name: kept[place] for name, place in step.kept}
            for name, what in step.given:
                values[name] = connection if what is Injected.CONNECTION else yielded
            values.update(step.constants)
            return values

        self.connection: Any = connection
        self.plan: CallPlan = plan
        self.target: dict[str, Any] = constants(plan.target)
        """The function's own arguments, as far as they are the same for all calls."""
        self.steps: tuple[tuple[CallStep, Call, dict[str, Any], bool, bool], ...] = tuple(
            (step, step.call, constants(step), bool(step.inputs or step.fresh), _is_plain_generator(step))
            for step in plan.steps
        )
        """Each with its function, its constants, whether these are all, and whether it is simply entered and left."""
        self.inputs: bool = bool(plan.target.inputs or plan.target.fresh)
        """Whether the function's own arguments have others."""
        self.message: str | None = plan.message


def _is_plain_generator(step: CallStep) -> bool:
    return step.kind is CallKind.ASYNC_GENERATOR and step.limit is None


class Calling:
    """One call, from its first dependency to the end of the last."""

    __slots__ = ("_bound", "background", "lives")

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self.lives: list[Life] | None = None
        """The generators that `leave` has to end. None when nothing was entered."""
        self.background: BackgroundTasks | None = None
        """Tasks to run after the call's answer. None when no parameter asked for them."""

    async def enter(self, message: Any) -> dict[str, Any]:
        """Run the dependencies. Returns the function's keyword arguments. `leave` is due even after an exception."""
        bound = self._bound
        results: list[Any] = []
        for step, call, constants, has_inputs, is_plain_generator in bound.steps:
            if has_inputs:
                values = constants.copy()
                self._fill(step, values, results)
            else:
                values = constants  # `**` copies them
            if is_plain_generator:
                life = AsyncLife(step.label, call, values)
                if self.lives is None:
                    self.lives = [life]
                else:
                    self.lives.append(life)
                if (value := await anext(life.generator, ENDED)) is ENDED:
                    raise GeneratorError(f"{step.label} did not yield")
                life.entered = True
                results.append(value)
            else:
                results.append(await self._run(step, values))
        values = bound.target.copy()
        if bound.inputs:
            self._fill(bound.plan.target, values, results)
        if bound.message is not None:
            values[bound.message] = message
        return values

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """End the dependencies, last first, with the call's exception. Returns the exception that is left
        afterwards."""
        lives = self.lives
        if lives is None:
            return error
        if error is not None:
            return await self._leave_failed(lives, error)
        while lives:
            try:
                life = lives.pop()
                if type(life) is not AsyncLife:
                    await life.leave(None)
                elif life.entered:
                    life.entered = False
                    if await anext(life.generator, ENDED) is not ENDED:
                        await life.yielded_twice()
            except BaseException as raised:
                return await self._leave_failed(lives, raised)
        return None

    @staticmethod
    async def _leave_failed(lives: list[Life], error: BaseException) -> BaseException | None:
        remaining: BaseException | None = error
        with anyio.CancelScope(shield=True) as scope:
            if isinstance(error, asyncio.CancelledError):
                scope.deadline = anyio.current_time() + TEARDOWN_SECONDS
            while lives:
                try:
                    if await lives.pop().leave(remaining):
                        remaining = None
                except BaseException as raised:
                    remaining = raised
        if scope.cancel_called and isinstance(remaining, asyncio.CancelledError):
            logger.error("the teardown of a cancelled call was cut off after %s s", TEARDOWN_SECONDS)
            return error
        return remaining

    def _fill(self, step: CallStep, values: dict[str, Any], results: list[Any]) -> None:
        for name, index in step.inputs:
            values[name] = results[index]
        for name, what in step.fresh:
            if what is Injected.RESPONSE:
                values[name] = Response()
            elif what is Injected.IDENTITY:
                values[name] = self._bound.connection.scope.get(IDENTITY_KEY)
            else:
                self.background = self.background or BackgroundTasks()
                values[name] = self.background

    async def _run(self, step: CallStep, values: dict[str, Any]) -> Any:
        if step.kind not in GENERATORS:
            if step.limit is None:
                return await returned_by(step, values)
            async with step.limit.get_semaphore():
                return await returned_by(step, values)
        self.lives = self.lives or []
        if step.limit is not None:
            place = LimitLife(step.limit)
            self.lives.append(place)
            await place.enter()
        life = (AsyncLife if step.kind is CallKind.ASYNC_GENERATOR else SyncLife)(step.label, step.call, values)
        self.lives.append(life)
        return await life.enter()
