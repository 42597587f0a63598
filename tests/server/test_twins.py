"""The two twins of a connection's pipe: one set of numbers, the same names, the same arguments.

That they behave alike is for the other tests, which run on both, and for the random lives that are compared here.
"""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import pytest

from antiphon.server import backend, bounds, pipe, state
from antiphon.server.backend import NATIVE_TWIN, PURE_TWIN, Twin
from antiphon.server.state import Opening
from antiphon.wire import Phase
from tests.commands import ROOT
from tests.server import simulation

FOLDER = ROOT / "src/antiphon/server"
INCLUDED = re.findall(r'^include "(\S+)"', (FOLDER / "_pipe.pyx").read_text(), re.MULTILINE)
NATIVE = "\n".join((FOLDER / name).read_text() for name in ("_pipe.pyx", *INCLUDED))
CALM = (10_000, 10_030)
"""Seeds of the lives that are compared."""
BEHIND_THE_PURE_ONE = {
    "Pipe": {"take_turn"},
    "Flusher": set(),
    "Turns": {"begin", "end", "enter", "is_over", "now", "owe"},
}
"""The native twin's private methods, since only C calls them."""


def native_class(name: str) -> str:
    """Its body, behind those of its bases."""
    found = re.search(rf"^cdef class {name}(?:\((\w+)\))?:\n((?:(?:    .*)?\n)+)", NATIVE, re.MULTILINE)
    assert found
    return (native_class(found[1]) if found[1] else "") + found[2]


def native_methods(name: str) -> dict[str, list[str]]:
    """The names of methods that Python can call, with their arguments."""
    return {
        method: [argument.split("=")[0].split()[-1] for argument in arguments.split(",")]
        for method, arguments in re.findall(r"^    def (\w+)\((.*?)\):", native_class(name), re.MULTILINE)
    }


def native_attributes(name: str) -> set[str]:
    return set(re.findall(r"^    cdef (?:public|readonly) .*?(\w+)(?:  #.*)?$", native_class(name), re.MULTILINE))


def pure_methods(cls: type) -> dict[str, list[str]]:
    methods: dict[str, list[str]] = {}
    for name, method in inspect.getmembers(cls):
        if isinstance(method, property):
            methods[name] = ["self"]
        elif name[:1] == "_" and name != "__init__":
            continue
        elif inspect.isfunction(method):
            methods[name] = list(inspect.signature(method).parameters)
    return methods


@pytest.mark.parametrize("name", ["Pipe", "Flusher", "Turns"])
def test_both_twins_have_the_same_public_names_with_the_same_arguments(name: str) -> None:
    pure = {
        method: arguments
        for method, arguments in pure_methods(getattr(pipe, name)).items()
        if method not in BEHIND_THE_PURE_ONE[name]
    }
    native = {method: arguments for method, arguments in native_methods(name).items() if method[:1] != "_"}
    native["__init__"] = native_methods(name)["__init__"]
    native.pop("deflate", None)  # an attribute, of which the native twin keeps a part apart
    assert native == pure


def test_both_twins_have_the_same_public_attributes() -> None:
    slots = {slot for cls in pipe.Pipe.__mro__ for slot in getattr(cls, "__slots__", ()) if slot[0] != "_"}
    assert native_attributes("Pipe") | {"deflate"} == slots


def test_the_native_twin_has_no_numbers_of_its_own() -> None:
    """It takes them from `bounds` and from the states, as the pure one does, so that they cannot drift."""
    taken = dict(re.findall(r"^cdef [\w ]+ ([A-Z_]+) = (?:bounds|Opening|Phase)\.(\w+)$", NATIVE, re.MULTILINE))
    assert all(name == source for name, source in taken.items())
    assert {name for name in vars(bounds) if name.isupper()} - set(taken) == {"SHORT"}  # which says so
    assert re.findall(r"^cdef [\w ]+ ([A-Z_]+) = [\d(]", NATIVE, re.MULTILINE) == []


def test_the_states_are_one_line_of_numbers() -> None:
    """Both twins compare them: states before OPEN were never open, and behind CLOSING nothing is parsed."""
    numbers = [int(one) for one in (*Opening, *Phase)]
    assert numbers == sorted(set(numbers))
    assert [state.state_of(number) for number in numbers] == [*Opening, *Phase]
    assert Opening.HANDSHAKE < Opening.WAITING_APP < Opening.DENYING < Phase.OPEN < Phase.CLOSING < Phase.CLOSED


def test_an_app_may_send_something_wherever_a_connection_is_not_over() -> None:
    assert set(state.APP_MAY_SEND) == {*Opening, Phase.OPEN}


def test_the_readme_shows_exactly_the_moves_that_the_code_allows() -> None:
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| ([A-Z_]+) \| .* \| ([^|]*) \|$", text, re.MULTILINE)
    shown = {name: set(re.findall(r"[A-Z_]+", moves)) for name, moves in rows}
    allowed = {state.state_of(number): moves for number, moves in state.MOVES.items()}
    assert shown == {one.name: {other.name for other in moves if other != one} for one, moves in allowed.items()}


@pytest.mark.skipif(NATIVE_TWIN is None, reason="the other twin is not built")
def test_both_twins_live_the_same_lives(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL)

    def lives_of(twin: Twin | None) -> list[Any]:
        monkeypatch.setattr(backend, "twin", twin)
        return [simulation.run(seed, calm=True).trace() for seed in range(*CALM)]

    for seed, native_life, pure_life in zip(range(*CALM), lives_of(NATIVE_TWIN), lives_of(PURE_TWIN), strict=True):
        assert native_life == pure_life, f"seed {seed}"
