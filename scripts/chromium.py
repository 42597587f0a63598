"""The Chromium that the tests drive, and its start. As a script: prints its path, exits 1 when none starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
CACHE = Path(__file__).resolve().parents[1] / ".cache"
"""Playwright's own build is kept in the checkout, not in the home folder."""
NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
SHELL = "chromium-headless-shell"
"""Debian's package of the same browser without windows, profiles and a process for a GPU."""


def find() -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    for name in NAMES:
        path = shutil.which(name)
        if path and not _is_snap(Path(path)):
            return path
    return _from_playwright()


def find_headless() -> str | None:
    """The browser without windows where there is one, which takes some 40 % less CPU for the same pages."""
    return os.environ.get("CHROMIUM") or shutil.which(SHELL) or find()


def _is_snap(path: Path) -> bool:
    """Ubuntu's stand-in scripts only start a snap, which cannot see a test's files and does not run in containers."""
    if "/snap/" in str(path.resolve()):
        return True
    return path.stat().st_size < 65536 and b"snap" in path.read_bytes()


def _from_playwright() -> str | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(CACHE / "playwright"))
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def starts(path: str) -> bool:
    """Not so where the path is wrong, or where Playwright's build misses libraries that only root can install."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    found = find()
    if found is None or not starts(found):
        sys.exit(1)
    sys.stdout.write(found + "\n")
