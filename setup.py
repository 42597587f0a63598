"""Builds the native twin where a compiler is at hand; installs the pure Python one where there is none."""

import os
from pathlib import Path

from setuptools import Extension, setup

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


setup(ext_modules=extensions())
