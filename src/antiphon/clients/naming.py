"""Names for generated types: each once, none that the file has already. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class TypeNames:
    """Gives each type a name of its own. `taken` may not be given. `prefix` stands before all."""

    def __init__(self, prefix: str, *, taken: AbstractSet[str]) -> None:
        self._prefix = prefix
        self._taken = set(taken)
        self._wanted: dict[str, str] = {}

    def new(self, wanted: str) -> str:
        """`wanted`, or the first of `wantedModel`, `wantedModel2`, … that is free."""
        base = f"{self._prefix}{wanted}"
        name = base
        number = 1
        while name in self._taken:
            name = f"{base}Model{'' if number == 1 else number}"
            number += 1
        self._taken.add(name)
        self._wanted[name] = wanted
        return name

    def is_of(self, name: str, wanted: str) -> bool:
        """Whether this name was given for that one."""
        return self._wanted.get(name) == wanted
