"""The lock files agree with pyproject.toml: `make lock` was run after a change."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.commands import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted([*ROOT.glob("requirements/*.lock"), *ROOT.glob("tests/*/*.lock")])


def requirements(lock: str) -> dict[str, str]:
    """Name → version of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.M))


def promised(*groups: str) -> list[Requirement]:
    """The requirements in pyproject.toml, with those of the groups."""
    project: dict[str, Any] = PYPROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    texts += [text for group in groups for text in PYPROJECT["dependency-groups"][group] if isinstance(text, str)]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", promised("build"), ids=str)
def test_the_lowest_version_that_is_promised_is_the_one_that_is_tested(requirement: Requirement) -> None:
    [bound] = requirement.specifier
    assert bound.operator == ">="
    tested = requirements("lowest")[canonicalize_name(requirement.name)]
    assert SpecifierSet(f"=={bound.version}.*").contains(tested), (
        f"{tested} is tested; renew the locks with `make lock`"
    )


@pytest.mark.parametrize("requirement", promised("build", "test", "dev"), ids=str)
def test_the_lock_has_everything_that_the_tests_install(requirement: Requirement) -> None:
    locked = requirements("dev")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(locked), f"{locked} is locked; `make lock` renews it"


def test_the_newest_of_everything_has_every_extra() -> None:
    [extras] = re.findall(
        r"PIP install .*--upgrade-strategy eager .*\[([a-z,]+)\]", (ROOT / "scripts/setup.sh").read_text()
    )
    assert set(extras.split(",")) == set(PYPROJECT["project"]["optional-dependencies"])


def test_serving_and_testing_install_the_same_versions() -> None:
    assert requirements("run").items() <= requirements("dev").items()


def test_a_build_environment_of_our_own_has_what_the_build_asks_for() -> None:
    assert PYPROJECT["dependency-groups"]["build"] == sorted(PYPROJECT["build-system"]["requires"])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_hashes_and_no_place(lock: Path) -> None:
    text = "".join(line for line in lock.read_text().splitlines(keepends=True) if not line.startswith("#"))
    pins = re.findall(r"^\S+==\S+.*?(?=^\S+==|\Z)", text, re.S | re.M)
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"://|--(extra-)?index|--find-links| @ ", text)
