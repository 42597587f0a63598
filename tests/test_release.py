"""A release cannot rot: the archives hold everything, and the workflows that publish them can be trusted."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.metadata import Metadata

import antiphon
from tests.commands import ROOT
from tests.patience import PATIENCE

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def dist() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dist", ROOT / "scripts" / "dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A source distribution, and a wheel made from it; pure, which takes seconds where native takes a minute."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(
        ROOT, folder, dirs_exist_ok=True, ignore=lambda at, names: set(names) - WANTED if at == str(ROOT) else {"*.so"}
    )
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder)]
    env = os.environ | {
        "ANTIPHON_PURE": "1",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REPOSITORY": "ann/fork",
        "GITHUB_REF_TYPE": "tag",
        "GITHUB_REF_NAME": "v7",
    }
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return sorted((folder / "dist").iterdir())


WANTED = {"src", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"}


def test_both_files_hold_every_module_and_all_data(built: list[Path], dist: ModuleType) -> None:
    assert {path.suffix for path in built} == {".whl", ".gz"}
    dist.check(built)


def test_a_file_that_lacks_data_is_refused(built: list[Path], dist: ModuleType, tmp_path: Path) -> None:
    [wheel] = [path for path in built if path.suffix == ".whl"]
    poorer = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(poorer, "w") as copy:
        for name in whole.namelist():
            if name != "antiphon/py.typed":
                copy.writestr(name, whole.read(name))
    with pytest.raises(dist.Wrong, match=r"lacks antiphon/py\.typed"):
        dist.check([poorer])


def test_what_belongs_to_the_checkout_is_refused(built: list[Path], dist: ModuleType, tmp_path: Path) -> None:
    [sdist] = [path for path in built if path.suffix == ".gz"]
    richer = tmp_path / sdist.name
    with tarfile.open(sdist) as whole, tarfile.open(richer, "w:gz") as copy:
        for member in whole.getmembers():
            copy.addfile(member, whole.extractfile(member) if member.isfile() else None)
        stray = tarfile.TarInfo(f"antiphon-{antiphon.__version__}/src/antiphon/wire/_native.c")
        copy.addfile(stray)
    with pytest.raises(dist.Wrong, match=r"_native\.c"):
        dist.check([richer])


def test_the_metadata_is_what_an_index_takes(built: list[Path]) -> None:
    [wheel] = [path for path in built if path.suffix == ".whl"]
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        raw = archive.read(name)
    metadata = Metadata.from_email(raw, validate=True)
    assert str(metadata.version) == antiphon.__version__
    assert metadata.description_content_type == "text/markdown"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.project_urls is not None
    assert metadata.project_urls["Source"] == "https://git.example/ann/fork"
    assert {"Changelog", "Documentation", "Issues", "Security"} < set(metadata.project_urls)
    assert str(metadata.requires_python) == PYPROJECT["project"]["requires-python"]
    assert email.message_from_bytes(raw).get_payload()


def test_the_page_of_an_index_has_links_and_pictures_of_that_tag(built: list[Path], dist: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    relative = dist.relative_links(readme)
    assert {"docs/images/desktop-light.png", "docs/hub.md", "#port-an-app"} < set(relative)
    for path in built:
        text = dist.metadata_of(path)
        assert dist.relative_links(text) == []
        assert "![A chat room](https://git.example/ann/fork/raw/v7/docs/images/desktop-light.png)" in text
        assert "[the hub](https://git.example/ann/fork/blob/v7/docs/hub.md)" in text
        assert "(https://git.example/ann/fork/blob/v7/README.md#port-an-app)" in text
        assert text.count("```") == readme.count("```")
        files = re.findall(r"https://git\.example/ann/fork/(?:raw|blob)/v7/([^)#]+)", text)
        assert len(files) == len(relative)
        assert [file for file in files if not (ROOT / file).exists()] == []


def test_a_file_with_relative_links_is_not_published(
    built: list[Path], dist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [wheel] = [path for path in built if path.suffix == ".whl"]
    older = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(older, "w") as copy:
        for name in whole.namelist():
            copy.writestr(name, whole.read(name).replace(b"https://git.example/ann/fork/blob/v7/", b""))
    monkeypatch.setattr(dist, "run", lambda *_: "")  # twine, which `make dist` has and the tests do not
    monkeypatch.setenv("GITHUB_REPOSITORY", "ann/fork")
    dist.check_metadata([wheel])
    with pytest.raises(dist.Wrong, match="these links lead nowhere"):
        dist.check_metadata([older])


def test_a_source_distribution_keeps_its_addresses_and_a_desk_has_none(built: list[Path], tmp_path: Path) -> None:
    [sdist] = [path for path in built if path.suffix == ".gz"]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    source = (unpacked / "setup.py").read_text().rpartition("setup(\n")[0] + "print(project_urls().get('Source'))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")} | {"ANTIPHON_PURE": "1"}
    for folder, expected in ((unpacked, "https://git.example/ann/fork"), (tmp_path, "None")):
        told = subprocess.run([sys.executable, "-c", source], cwd=folder, env=env, capture_output=True, text=True)
        assert told.stdout.split() == [expected], told.stderr


def test_the_version_stands_in_one_place() -> None:
    version = re.escape(antiphon.__version__)
    assert "version" not in PYPROJECT["project"]
    stated = [
        path
        for pattern in ("pyproject.toml", "setup.py", "src/**/*.py")
        for path in ROOT.glob(pattern)
        if re.search(rf"""version\w*\s*=\s*["']{version}["']""", path.read_text())
    ]
    assert stated == [ROOT / "src/antiphon/version.py"]


def test_a_tag_is_the_version_and_the_changelog_has_its_date(
    dist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "ROOT", tmp_path)
    (tmp_path / "src/antiphon").mkdir(parents=True)
    (tmp_path / "src/antiphon/version.py").write_text('__version__ = "1.2.3"\n')
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 1.2.3 (unreleased)\n")
    with pytest.raises(dist.Wrong, match=r"no heading `## 1\.2\.3 \(YYYY-MM-DD\)`"):
        dist.check_tag("v1.2.3")
    changelog.write_text("# Changelog\n\n## 1.2.3 (2027-01-31)\n")
    dist.check_tag("v1.2.3")
    for tag in ("v1.2.4", "1.2.3", "v1.2.3rc1"):
        with pytest.raises(dist.Wrong, match=r"version\.py says 1\.2\.3"):
            dist.check_tag(tag)


def test_a_build_that_finds_no_compiler_says_what_is_installed_instead(tmp_path: Path) -> None:
    nowhere = {"CC": str(tmp_path / "no-compiler"), "PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "setup.py", "build_ext", "-b", str(tmp_path / "lib"), "-t", str(tmp_path / "temporary")]
    ran = subprocess.run(command, cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=PATIENCE)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "no native twin was built of antiphon.gate._spending, antiphon.server._pipe" in said
    assert "The pure Python twin is installed" in said


# The workflows


def jobs() -> list[Any]:
    return [
        pytest.param(workflow, name, job, id=f"{path.stem}-{name}")
        for path in WORKFLOWS
        for workflow in [yaml.safe_load(path.read_text())]
        for name, job in workflow["jobs"].items()
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_and_names_its_version(path: Path) -> None:
    used = re.findall(r"uses: *(.+)", path.read_text())
    assert used
    for one in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one


def test_one_action_has_one_version_everywhere() -> None:
    used = {one for path in WORKFLOWS for one in re.findall(r"uses: *(.+)", path.read_text())}
    assert len({one.partition("@")[0] for one in used}) == len(used)


@pytest.mark.parametrize(("workflow", "name", "job"), jobs())
def test_a_job_may_write_only_where_it_publishes(workflow: Any, name: str, job: Any) -> None:
    granted = job.get("permissions", workflow["permissions"])
    writes = {scope for scope, access in granted.items() if access == "write"}
    assert writes <= ({"id-token", "pages"} if name == "publish" else set())
    assert name != "publish" or job["environment"]["name"] in ("pypi", "github-pages")


@pytest.mark.parametrize(("workflow", "name", "job"), jobs())
def test_a_job_ends_and_runs_what_is_there(workflow: Any, name: str, job: Any) -> None:
    assert job["timeout-minutes"] <= 60
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in job["steps"]:
        assert set(re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE)) <= targets
        for script in re.findall(r"\b((?:scripts|requirements)/[\w./]+)", step.get("run", "")):
            assert (ROOT / script).exists(), script


def test_nothing_is_published_that_has_not_been_tried() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]

    def before(name: str) -> set[str]:
        needs = release[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    assert before("publish") == release.keys() - {"publish"}
    assert "tag" in release["publish"]["if"]


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_what_github_reads_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_dependabot_looks_where_the_dependencies_are() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    npm = {folder for one in updates if one["package-ecosystem"] == "npm" for folder in one["directories"]}
    assert npm == {f"/{path.parent.relative_to(ROOT)}" for path in ROOT.glob("tests/**/package-lock.json")}
    assert {one["package-ecosystem"] for one in updates} == {"github-actions", "pip", "npm"}
