"""Makes the files of a release in dist/, and judges them.

    python scripts/dist.py sdist           build the source distribution alone, and check it
    python scripts/dist.py build           build it, and a wheel for this Python from it; check both
    python scripts/dist.py check FILE...   check files built elsewhere
    python scripts/dist.py try [PYTHON...] install both in clean environments and use them; without names, on each
                                           version of Python that is found here
    python scripts/dist.py tag v1.2.3      refuse unless the sources and CHANGELOG.md say so

Wants `build` and `twine` (requirements/dist.lock). `make dist` has them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
BUILT = {".so", ".c", ".pyc", ".cpp", ".html.cython"}


class Wrong(Exception):
    """An obstacle to a release."""


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "src/antiphon/version.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def check_tag(tag: str) -> None:
    if tag != f"v{version()}":
        raise Wrong(f"the tag is {tag}, and src/antiphon/version.py says {version()}")
    heading = rf"^## {re.escape(version())} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise Wrong(f"CHANGELOG.md has no heading `## {version()} (YYYY-MM-DD)`")


def build(*kinds: str) -> list[Path]:
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, *kinds, ROOT)
    return sorted(DIST.iterdir())


def sources() -> set[str]:
    """Everything below src/ that a user's installation has."""
    return {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src").rglob("*")
        if path.is_file()
        and path.suffix not in BUILT | {".md"}
        and not any(part.endswith((".egg-info", "__pycache__")) for part in path.parts)
    }


def names(file: Path) -> set[str]:
    """The files in a distribution; of a source distribution, below its one folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return set(wheel.namelist())
    with tarfile.open(file) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def check(files: Iterable[Path]) -> None:
    """Raises Wrong for a file that is not whole, is of another version, or has foreign content."""
    files = list(files)
    if not files:
        raise Wrong("there is nothing to check")
    for file in files:
        found = names(file)
        if f"antiphon-{version()}" not in file.name:
            raise Wrong(f"{file.name} is not of version {version()}")
        wheel = file.suffix == ".whl"
        expected = sources() if wheel else {f"src/{name}" for name in sources()}
        if not wheel:
            expected |= {"LICENSE", "README.md", "pyproject.toml", "setup.py"}
        if missing := sorted(expected - found):
            raise Wrong(f"{file.name} lacks {', '.join(missing[:9])}")
        strange = sorted(
            name for name in found if re.search(r"(^|/)(tests|benchmarks|docs|\.venv|build)/|\.py[co]$", name)
        )
        strange += sorted(name for name in found if not wheel and Path(name).suffix in BUILT)
        if strange:
            raise Wrong(f"{file.name} has what belongs to nobody else: {', '.join(strange[:9])}")
        print(f"{file.name}: {len(found)} files, {file.stat().st_size >> 10} KiB")


def check_metadata(files: Iterable[Path]) -> None:
    files = list(files)
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    for file in files:
        if links := relative_links(metadata_of(file)):
            told = f"{file.name}: on the page of an index these links lead nowhere: {', '.join(links[:3])}, …"
            if "GITHUB_REPOSITORY" in os.environ:
                raise Wrong(told)
            print(f"{told}\nbuild what is published with GITHUB_REPOSITORY=owner/name")


def metadata_of(file: Path) -> str:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            return wheel.read(name).decode()
    with tarfile.open(file) as archive:
        member = archive.extractfile(f"{file.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert member is not None
        return member.read().decode()


def relative_links(text: str) -> list[str]:
    """Targets of Markdown's links and images that are no addresses, outside of code."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose)


def pythons() -> list[str]:
    """One of each version that is promised and found: on PATH, or of pyenv."""
    found = {}
    for wanted in VERSIONS:
        here = [shutil.which(f"python{wanted}")]
        here += [str(path) for path in Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python")]
        for one in filter(None, here):
            told = subprocess.run([one, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True)
            if told.stdout.decode().strip() == wanted:
                found[wanted] = one
                break
    return list(found.values())


def try_all(interpreters: Iterable[str]) -> None:
    """The sdist with a compiler on each, on the first also without one, and the wheel where it fits."""
    [sdist] = DIST.glob("*.tar.gz")
    for number, python in enumerate(interpreters):
        try_one(python, sdist, "native")
        if number == 0:
            try_one(python, sdist, "pure", compiler=False)
        for wheel in DIST.glob("*.whl"):
            if tag_of(python) in wheel.name:
                try_one(python, wheel, "native")


def tag_of(python: str) -> str:
    code = "import sys; print('cp%d%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def try_one(python: str, file: Path, engine: str, *, compiler: bool = True) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        bin_ = Path(folder, "bin")
        env = dict(os.environ) if compiler else os.environ | {"PATH": str(bin_)}
        env.pop("ANTIPHON_PURE", None)
        pip = (bin_ / "python", "-m", "pip", "--disable-pip-version-check", "install", "--no-cache-dir", "--verbose")
        said = run(*pip, file, env=env, quiet=True)
        if not compiler and "no native twin was built" not in said:
            raise Wrong("a build without a compiler does not say what was installed instead")
        print(run(bin_ / "python", "-I", ROOT / "scripts/installed.py", engine, quiet=True), end="", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, quiet: bool = False) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT if "build" in command else None,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    if not quiet:
        print("\n".join(done.stdout.splitlines()[-3:]))
    return done.stdout


def main(task: str = "", *arguments: str) -> None:
    match task:
        case "tag":
            check_tag(*arguments)
        case "sdist" | "build":
            files = build(*(["--sdist"] if task == "sdist" else []))
            check(files)
            check_metadata(files)
        case "check":
            check(map(Path, arguments))
            check_metadata(map(Path, arguments))
        case "try":
            try_all(arguments or pythons())
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Wrong as wrong:
        sys.exit(f"error: {wrong}")
