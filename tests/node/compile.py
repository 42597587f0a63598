"""`python -m tests.node.compile` makes `runtime.js` and `runtime.d.ts` of `runtime.ts`. A test holds them beside it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.node import HERE, tool

CLIENTS = HERE.parents[1] / "src" / "antiphon" / "clients"
MADE = ("runtime.js", "runtime.d.ts")


def compiled(target: Path, *, typescript: str = "typescript") -> None:
    """Compile the runtime into a folder. Raises RuntimeError with the compiler's output."""
    check([CLIENTS / "runtime.ts"], "--declaration", "--outDir", str(target), typescript=typescript)


def check(files: list[Path], *options: str, typescript: str = "typescript") -> None:
    """Type-check in the strictest way, with these `options`. Raises RuntimeError with the compiler's output."""
    settings = (HERE / "tsconfig.json").read_text()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tsconfig.json")
        names = ", ".join(f'"{file.resolve()}"' for file in files)
        root = files[0].parent.resolve()
        config.write_text(settings.rstrip().rstrip("}") + f', "files": [{names}]}}')
        command = [*tool(typescript, "bin/tsc"), "-p", str(config), "--rootDir", str(root), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


if __name__ == "__main__":
    compiled(CLIENTS)
