"""Builds the native twin where a compiler is at hand; installs the pure Python one where there is none.

Also writes the project's addresses into the metadata, and into the links of README.md, which an index shows: those of
the repository that a workflow runs for, so that a fork's files do not point to another's tracker, and a build on a desk
points nowhere.
"""

import email
import logging
import os
import re
from email.message import Message
from itertools import cycle
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(Path("src/antiphon").rglob("*.pyx"))


def extensions() -> list[Extension]:
    if os.environ.get("ANTIPHON_PURE") == "1" or not SOURCES:
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    modules = [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path)],
            extra_compile_args=os.environ.get("ANTIPHON_CFLAGS", "-O3").split(),
            extra_link_args=os.environ.get("ANTIPHON_LDFLAGS", "").split(),
        )
        for path in SOURCES
    ]
    built: list[Extension] = cythonize(modules, include_path=["src"], language_level=3, build_dir="build/cython")
    for module in built:  # cythonize makes extensions of its own, and forgets that they were optional
        module.optional = True  # a failed compile leaves the pure twin in charge
    return built


class BuildNative(build_ext):
    """Says at its end what was installed instead of what could not be built; setuptools only says that it could not."""

    def run(self) -> None:
        super().run()
        missing = [module.name for module in self.extensions if not Path(self.get_ext_fullpath(module.name)).exists()]
        if missing:
            self.announce(
                f"antiphon: no native twin was built of {', '.join(missing)} (the reason is above; it takes a C "
                "compiler and Python's headers). The pure Python twin is installed, which does the same and is slower.",
                level=logging.WARNING,
            )


PAGES = {
    "Source": "",
    "Documentation": "/tree/HEAD/docs",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
    "Issues": "/issues",
    "Security": "/security/policy",
}


def home() -> str | None:
    """The repository that a workflow runs for; None on a desk."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}" if repository else None


def made() -> Message | None:
    """The metadata of the source distribution that this is; None in a checkout."""
    path = Path("PKG-INFO")
    return email.message_from_string(path.read_text(encoding="utf-8")) if path.exists() else None


def project_urls() -> dict[str, str]:
    """From the environment of the workflow, else from the source distribution that this is."""
    if at := home():
        return {name: f"{at}{page}" for name, page in PAGES.items()}
    metadata = made()
    return dict(one.split(", ", 1) for one in metadata.get_all("Project-URL", [])) if metadata else {}


def description() -> str:
    """README.md for the page of an index, which has none of the repository's files: its links are absolute there."""
    text = Path("README.md").read_text(encoding="utf-8")
    if at := home():
        tag = os.environ.get("GITHUB_REF_NAME") if os.environ.get("GITHUB_REF_TYPE") == "tag" else None
        return "```".join(
            part if code else absolute(part, at, tag or "HEAD")
            for part, code in zip(text.split("```"), cycle([False, True]), strict=False)
        )
    metadata = made()
    return str(metadata.get_payload()) if metadata else text


def absolute(text: str, at: str, ref: str) -> str:
    """Markdown with its links and images into the repository at this address and commit."""

    def link(found: re.Match[str]) -> str:
        image, target = found["image"], found["target"]
        target = f"README.md{target}" if target.startswith("#") else target
        return f"{image}[{found['words']}]({at}/{'raw' if image else 'blob'}/{ref}/{target})"

    return re.sub(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?!\w+:)(?P<target>[^)\s]+)\)", link, text)


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildNative},
    project_urls=project_urls(),
    long_description=description(),
    long_description_content_type="text/markdown",
)
