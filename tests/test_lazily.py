"""Packages that import their names when asked: nobody but the interpreter notices."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import antiphon
import antiphon.testing

PACKAGES = [antiphon, antiphon.testing]


def imported_for_type_checkers(package: ModuleType) -> dict[str, set[str]]:
    """Module to names, as the block under TYPE_CHECKING has them."""
    assert package.__file__ is not None
    for node in ast.parse(Path(package.__file__).read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return {
                "." * one.level + (one.module or ""): {alias.name for alias in one.names}
                for one in node.body
                if isinstance(one, ast.ImportFrom)
            }
    raise AssertionError("no imports for type checkers")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_and_the_interpreter_are_told_the_same(package: ModuleType) -> None:
    told = imported_for_type_checkers(package)
    for home, names in told.items():
        for name in names:
            expected = (
                importlib.import_module(f".{name}", package.__name__)
                if home == "."
                else getattr(importlib.import_module(home, package.__name__), name)
            )
            assert getattr(package, name) is expected
    assert set(package.__all__) - {"__version__"} == set().union(*told.values())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_is_listed_and_no_other_is_there(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Websocket'"):
        package.Websocket
    with pytest.raises(ImportError, match="cannot import name 'Websocket'"):
        exec(f"from {package.__name__} import Websocket")


def loaded_by(code: str) -> set[str]:
    listing = f"{code}; import sys; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", listing], text=True).split())


@pytest.mark.parametrize(
    "code", ["import antiphon.cli.connect", "import antiphon.testing.hub_worker", "import antiphon; antiphon.Hub"]
)
def test_who_needs_no_application_loads_none(code: str) -> None:
    loaded = loaded_by(code)
    assert "antiphon" in loaded
    assert not loaded & {"antiphon.app", "antiphon.routing", "antiphon.asyncapi"}


def test_a_module_of_the_package_is_an_attribute_without_an_import() -> None:
    assert "antiphon.security" in loaded_by("import antiphon; antiphon.security.HTTPBearer")


def test_what_a_module_itself_misses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lazy_one"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from antiphon.lazily import lazily\n__getattr__, __dir__ = lazily(__name__, {'.needy': ('thing',)})\n"
    )
    (package / "needy.py").write_text("import no_such_library\nthing = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import lazy_one  # type: ignore[import-not-found]

    for name in ("thing", "needy"):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            getattr(lazy_one, name)
