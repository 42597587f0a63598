"""Builds the native twin where a compiler is at hand; installs the pure Python one where there is none."""

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


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})
