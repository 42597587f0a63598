"""Places that a server needs on disk, where there is little: paths, folders for temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from antiphon.cli import metrics
from antiphon.cli.loading import Target, load
from antiphon.cli.problem import Problem
from antiphon.cli.sockets import listen_unix


@pytest.fixture
def no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on: `tmp_path` itself needs one."""

    def gettempdir() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", gettempdir)


@pytest.mark.usefixtures("no_temporary_files")
def test_the_numbers_of_workers_are_in_shared_memory_where_no_other_file_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metrics, "SHARED_MEMORY", str(tmp_path))
    with metrics.shared_folder() as folder:
        assert Path(folder).parent == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_temporary_files")
def test_where_there_is_none_either_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics, "SHARED_MEMORY", str(tmp_path / "none"))
    with pytest.raises(Problem, match="a folder for temporary files") as caught, metrics.shared_folder():
        pass
    assert "TMPDIR" in caught.value.hints[0]


def test_a_path_that_is_too_long_for_a_socket_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="too long"):
        listen_unix(str(tmp_path / ("x" * 120)))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_late.py").write_text("from antiphon import App\nasync def make(): return App()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "made_late"


def test_an_async_factory_is_refused_at_the_start(module: str) -> None:
    with pytest.raises(Problem, match="async function") as caught:
        load(Target(module, "make"), factory=True)
    assert "lifespan" in caught.value.hints[0]


def test_an_imported_class_is_not_the_app_that_was_meant(module: str) -> None:
    with pytest.raises(Problem, match="has no 'app'") as caught:
        load(Target(module, "app"), factory=False)
    assert list(caught.value.hints) == ["that module defines no application"]
