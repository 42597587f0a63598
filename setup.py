"""Builds the native twin where a compiler is at hand; installs the pure Python one where there is none.

Also writes the project's addresses into the metadata: of the repository that a workflow runs for, so that a fork's
files do not point to another's tracker, and a build on a desk points nowhere.
"""

import email
import logging
import os
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


def project_urls() -> dict[str, str]:
    """From the environment of the workflow, else from the source distribution that this is."""
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        home = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
        return {name: f"{home}{page}" for name, page in PAGES.items()}
    made = Path("PKG-INFO")
    stated = (
        email.message_from_string(made.read_text(encoding="utf-8")).get_all("Project-URL", []) if made.exists() else []
    )
    return dict(one.split(", ", 1) for one in stated)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative}, project_urls=project_urls())
