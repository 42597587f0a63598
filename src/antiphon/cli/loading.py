"""From a user's argument to `antiphon run` to an application, with an explanation where that fails.

Knows nothing of servers.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .problem import Problem

DEFAULT_ATTRIBUTE = "app"

_OURS = str(Path(__file__).parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class Target:
    """An application by name."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def locate(text: str, app_dir: str) -> Target:
    """Read `module:attribute`, `module` or `path/to/file.py[:attribute]`, and make the module importable.

    `app_dir` (for a path: the folder above the file's outermost package) goes to the front of `sys.path`.
    """
    name, _, attribute = text.partition(":")
    path = Path(app_dir, name)
    if name.endswith(".py") or os.sep in name:
        app_dir, name = _module_of(path)
    elif not all(part.isidentifier() for part in name.split(".")):
        raise Problem(f"{text!r} is not a name of the form module:app", "for example: antiphon run main:app")
    elif not Path(app_dir).is_dir():
        raise Problem(f"--app-dir {app_dir} is not a folder")
    sys.path.insert(0, str(Path(app_dir).resolve()))
    return Target(name, attribute or DEFAULT_ATTRIBUTE)


def _module_of(path: Path) -> tuple[str, str]:
    if not path.is_file():
        nearby = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hints = [*_meant(path.name, nearby), *_listed(f"{path.parent} has", nearby)]
        raise Problem(f"there is no file {path}", *(hints or ["a module's name has dots: package.module:app"]))
    path = path.resolve()
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return str(folder), ".".join(parts)


def check_exists(target: Target) -> None:
    """For `--reload`: a module that exists but does not import may be repaired while we wait."""
    try:
        found = importlib.util.find_spec(target.module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise _no_module(target.module)


def load(target: Target, *, factory: bool) -> Any:
    """Import the application. Raises `Problem` with the fault and the likely intention."""
    application: Any = _import(target.module)
    for part in target.attribute.split("."):
        try:
            application = getattr(application, part)
        except AttributeError:
            raise _no_attribute(target, application, part) from None
    if factory:
        if not callable(application):
            raise Problem(f"{target} is {_kind(application)}, but --factory needs a function that returns an app")
        if not _accepts(application, 0):
            raise Problem(
                f"{target} is {_kind(application)} that needs arguments, but --factory calls it without any",
                *([f"it is an application itself: antiphon run {target}"] if _is_application(application) else []),
            )
        if inspect.iscoroutinefunction(application):
            raise Problem(
                f"{target} is an async function, and --factory calls it without await",
                "a plain function is expected: what it awaits has its place in the lifespan of the app",
            )
        if isinstance(application, type) and _is_of_a_framework(application):
            raise _a_class(target, application)
    elif isinstance(application, type) and not _is_asgi_class(application):
        raise _a_class(target, application)
    elif not _looks_like_asgi(application):
        raise _not_asgi(target, application)
    return application


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name) from None
        raise Problem(
            f"module {name!r} imports {error.name!r}, which is not installed",
            *_own_frames(error)[-2:],
            f"install it, or check that it is installed for {sys.executable}",
        ) from None
    except Exception as error:
        lines = [*_own_frames(error), *"".join(traceback.format_exception_only(error)).rstrip().splitlines()]
        lines += _importable(error) if isinstance(error, ImportError) else []
        raise Problem(f"module {name!r} cannot be imported:", *lines) from None


def _importable(error: ImportError) -> list[str]:
    """Names close to one that its module does not have."""
    name = re.search(r"import name '(\w+)'", str(error))
    module = sys.modules.get(error.name or "")
    if name is None or module is None:
        return []
    return _meant(name[1], [key for key in dir(module) if not key.startswith("_")], prefix=f"{error.name}.")


def _own_frames(error: BaseException) -> list[str]:
    """The frames of the user's code: neither ours nor the import machinery's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_OURS) and "importlib" not in frame.filename
    ]
    return "".join(traceback.format_list(frames)).rstrip().splitlines()


def _no_module(name: str) -> Problem:
    parent, _, last = name.rpartition(".")
    try:
        spec = importlib.util.find_spec(parent) if parent else None
    except ModuleNotFoundError:
        spec = None
    if parent and spec is None:
        return _no_module(parent)
    if spec is not None and spec.submodule_search_locations is None:
        return Problem(f"{parent!r} is a module, not a package: it has no {last!r}", f"did you mean {parent}:{last}?")
    folders = list(spec.submodule_search_locations or []) if spec is not None else [sys.path[0]]
    nearby = [module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_")]
    return Problem(
        f"there is no module {name!r} in {folders[0] if folders else parent}",
        *_meant(last, nearby, prefix=f"{parent}." if parent else ""),
        *_listed("that folder has", sorted(nearby)),
        *([] if nearby else ["--app-dir names the folder to look in"]),
    )


def _no_attribute(target: Target, owner: Any, name: str) -> Problem:
    names = vars(owner) if hasattr(owner, "__dict__") else {}
    hints = _apps(target, names)
    if not hints:
        imported = [key for key, value in names.items() if isinstance(value, type) and _is_of_a_framework(value)]
        public = [key for key in names if not key.startswith("_") and key not in imported]
        hints = _meant(name, public, prefix=f"{target.module}:") or ["that module defines no application"]
    return Problem(f"module {target.module!r} has no {name!r}", *hints)


def _apps(target: Target, names: Mapping[str, Any]) -> list[str]:
    apps = sorted(key for key, value in names.items() if _is_application(value))
    return [f"did you mean {target.module}:{app}?" for app in apps]


def _not_asgi(target: Target, application: Any) -> Problem:
    if inspect.isfunction(application) and not inspect.signature(application).parameters:
        return Problem(
            f"{target} is a function without parameters, not an ASGI application",
            f"if it returns the application: antiphon run --factory {target}",
        )
    hints = _apps(target, vars(sys.modules[target.module]))
    if hasattr(application, "websocket") or type(application).__name__ == "APIRouter":
        hints.append("a router is served by an App: app.include_router(router)")
    return Problem(
        f"{target} is {_kind(application)}, not an ASGI application (a callable taking scope, receive, send)", *hints
    )


def _a_class(target: Target, application: type) -> Problem:
    name = application.__qualname__
    hints = _apps(target, vars(sys.modules[target.module])) or [f"an application is made of it: app = {name}()"]
    if not _is_of_a_framework(application) and _accepts(application, 0):
        hints.append(f"if calling it returns the application: antiphon run --factory {target}")
    return Problem(f"{target} is the class {name}, not an application: it has no routes", *hints)


def _is_of_a_framework(application: type) -> bool:
    """A class that a module has imported, and an app of which is always empty."""
    return application.__module__.partition(".")[0] in ("antiphon", "fastapi", "starlette")


def _is_asgi_class(application: type) -> bool:
    """Whether instances serve: one per scope (ASGI 2), or one per connection, to be awaited (Starlette's endpoints)."""
    if _accepts(application, 0):
        return False
    return _accepts(application, 1) or (_accepts(application, 3) and hasattr(application, "__await__"))


def _looks_like_asgi(value: Any) -> bool:
    if not callable(value) or type(value).__name__ == "APIRouter":
        return False
    if inspect.isfunction(value):
        # ASGI 2 applications take the scope alone, and return an awaitable. An endpoint takes a WebSocket alone.
        return _accepts(value, 3) or (_accepts(value, 1) and not inspect.iscoroutinefunction(value))
    return True


def _accepts(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _is_application(value: Any) -> bool:
    """For suggestions: an object with an async `__call__` that takes ASGI's arguments."""
    if isinstance(value, type) or inspect.isroutine(value) or type(value).__name__ == "APIRouter":
        return False
    return callable(value) and inspect.iscoroutinefunction(type(value).__call__) and _accepts(value, 3)


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    if inspect.ismodule(value):
        return "a module"
    name = type(value).__qualname__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _meant(name: str, candidates: Iterable[str], prefix: str = "") -> list[str]:
    return [f"did you mean {prefix}{match}?" for match in difflib.get_close_matches(name, list(candidates), n=1)]


def _listed(label: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:8])
    return [f"{label}: {shown}{', …' if len(names) > 8 else ''}"]
