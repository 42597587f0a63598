"""Lays the site's pages out in .cache/docs/pages, builds them into .cache/docs/site, and checks every link there.

    python scripts/site.py           build; a warning or a dead link is an error
    python scripts/site.py serve     build, and show it on http://localhost:8001 until Ctrl-C; changes are built anew

The site has the layout of the repository, so that a link that works in one works in the other. A link's target that is
no page (an example, a unit file) becomes one. The reference is made here, from docs/stability.md and the docstrings.
The configuration is zensical.toml. Wants requirements/docs.lock. `make docs` has it.
"""

from __future__ import annotations

import ast
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".cache/docs"
PAGES = WORK / "pages"
SITE = WORK / "site"
WRITTEN = ("*.md", "docs/**/*.md", "examples/**/*.md", "src/**/*.md", "benchmarks/*.md", "tests/*.md")
ASSETS = (".png", ".svg", ".js", ".css")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".conf": "nginx", ".service": "ini", ".socket": "ini"}
PORT = 8001


def main(task: str = "build") -> None:
    if task not in ("build", "serve"):
        raise SystemExit(__doc__)
    build()
    if task == "serve":
        serve()


def build() -> None:
    lay_out()
    shutil.rmtree(SITE, ignore_errors=True)
    # Not in the checkout itself: the folder `.cache` beside its configuration is Zensical's, and `--clean` removes it.
    (WORK / "zensical.toml").write_text(configuration())
    zensical = Path(sys.executable).parent / "zensical"
    built = subprocess.run(
        [zensical, "build", "--clean", "--strict", "--config-file", WORK / "zensical.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode:
        sys.exit(f"{built.stdout}\nerror: the site has warnings, shown above")
    for page in SITE.rglob("*.html"):
        page.write_text(mended(page.read_text()))
    dead = dead_links(SITE)
    if dead:
        sys.exit("\n".join(dead) + f"\nerror: {len(dead)} dead links")
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}, and no dead link")


def configuration() -> str:
    """zensical.toml, with the pages of the reference in its navigation."""
    here = '{ "Modules" = "docs/reference/index.md" }'
    text = (ROOT / "zensical.toml").read_text()
    assert text.count(here) == 1
    pages = ['"docs/reference/index.md"', *(f'{{ "{one}" = "docs/reference/{one}.md" }}' for one in public_modules())]
    return text.replace(here, '{ "Modules" = [' + ", ".join(pages) + "] }")


def serve() -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://localhost:{PORT} (press CTRL+C to stop)")
    seen = stamps()
    try:
        while True:
            time.sleep(0.5)
            if (now := stamps()) != seen:
                seen = now
                try:
                    build()
                except SystemExit as problem:
                    print(problem)
    except KeyboardInterrupt:
        server.shutdown()


def stamps() -> dict[Path, float]:
    watched = [ROOT / "zensical.toml", *written(), *(ROOT / "src").rglob("*.py")]
    return {path: path.stat().st_mtime for path in watched if path.exists()}


def written() -> list[Path]:
    return sorted({path for pattern in WRITTEN for path in ROOT.glob(pattern)})


# Pages


def lay_out() -> None:
    """Every page that somebody wrote, the files they link to, and the reference."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for page in written():
        text = LINK.sub(functools.partial(shown, page), page.read_text())
        put(page.relative_to(ROOT), described(text, description(text)))
    for asset in (path for path in (ROOT / "docs").rglob("*") if path.suffix in ASSETS):
        target = PAGES / asset.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(asset, target)
    reference()


def example(file: Path) -> str:
    """The gallery's text on a program: its docstring, the commands in it, and the tests that run it."""
    purpose, *rest = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")
    commands = "\n".join(line for part in rest for line in part.splitlines() if re.match(r"antiphon |curl ", line))
    prose = "\n\n".join(part for part in rest if not re.match(r"antiphon |curl ", part))
    tests = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if file.name in path.read_text())
    tested = ", ".join(f"`{path.relative_to(ROOT)}`" for path in tests)
    picture = ROOT / "docs" / "images" / f"{file.stem}.png"
    shown = f"![{purpose.rstrip('.')}](../docs/images/{picture.name})\n\n" if picture.exists() else ""
    run = f"## Run it\n\n~~~~sh\n{commands}\n~~~~\n\n" if commands else ""
    return f"{purpose}\n\n{prose}\n\n{shown}{run}## Tests\n\n{tested}\n\n## The program\n\n"


def described(text: str, words: str) -> str:
    return f"---\ndescription: {json.dumps(words)}\n---\n\n{text}"


def description(text: str) -> str:
    """The first sentences of a page, forty characters of them, for search engines and screen readers."""
    prose = re.sub(r"^(```|~~~).*?^\1|^(#|\||<|!|---).*?$", "", text, flags=re.MULTILINE | re.DOTALL).strip()
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", " ".join(prose.split("\n\n")[0].split()))
    found = ""
    for sentence in re.split(r"(?<=[.!?:]) ", plain):
        found = f"{found} {sentence}".strip()
        if len(found) > 40:
            break
    return found.removesuffix(":").replace('"', "'")  # the theme writes it between double quotes as it is


def mended(html: str) -> str:
    """Without elements that no screen reader can name: anchors of lines (a page had some twice), open boxes, empty
    headers."""
    html = re.sub(r'<a id="__codelineno-[^>]*></a>', "", html)
    html = re.sub(r'<span id="__span-[^"]*"', "<span", html)
    html = html.replace('<input type="checkbox" disabled', '<input type="checkbox" aria-label="to do" disabled')
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def put(name: Path, text: str) -> None:
    target = PAGES / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def shown(page: Path, link: re.Match[str]) -> str:
    """The link; to a file that is no page, one to a page that shows it."""
    target = link[2]
    file = (page.parent / target).resolve()
    if "://" in target or file.suffix in (".md", *ASSETS) or not file.is_relative_to(ROOT):
        return link[0]
    if file.is_dir():
        index = next((name for name in ("README.md", "index.md") if (file / name).exists()), None)
        return link[0] if index is None else f"{link[1]}{target.rstrip('/')}/{index}{link[3]}"
    name = file.relative_to(ROOT)
    place = Path(*(part.removeprefix(".") for part in name.parts))
    language = LANGUAGES.get(file.suffix, "text")
    words = example(file) if file.parent == ROOT / "examples" and file.suffix == ".py" else ""
    put(place.with_name(f"{place.name}.md"), f"# {name}\n\n{words}~~~~{language}\n{file.read_text()}~~~~\n")
    way = os.path.relpath(ROOT / place, page.parent)
    return f"{link[1]}{way}.md{link[3]}"


# Reference


def reference() -> None:
    """A page for each module of docs/stability.md, with each public name where it is at home."""
    purposes = public_modules()
    exported = {module: names_of(module) for module in purposes}
    homes: dict[str, str] = {}
    for module in sorted(exported, key=lambda name: (name.count("."), name), reverse=True):
        for name in exported[module]:
            homes.setdefault(source_of(module, name), module)
    lines = ["# Reference", "", "| module | what it is for |", "|---|---|"]
    for module, purpose in purposes.items():
        lines.append(f"| [`{module}`]({module}.md) | {purpose} |")
        page = module_page(module, purpose, exported[module], homes)
        put(Path("docs/reference", f"{module}.md"), described(page, f"{module}: {purpose}".replace("`", "")))
    lines += ["", "[The command line](../cli.md) · [what is public](../stability.md)"]
    put(Path("docs/reference/index.md"), "\n".join(lines) + "\n")


def public_modules() -> dict[str, str]:
    """The modules that docs/stability.md calls public, each with its purpose."""
    table = re.findall(r"^\| (`antiphon.*?) \| (.*?) \|$", (ROOT / "docs/stability.md").read_text(), re.MULTILINE)
    return {name: purpose for names, purpose in table for name in re.findall(r"`([\w.]+)`", names)}


def module_page(module: str, purpose: str, names: list[str], homes: dict[str, str]) -> str:
    lines = [f"# {module}", "", f"{purpose[0].upper()}{purpose[1:]}.", ""]
    elsewhere = []
    for name in names:
        origin = source_of(module, name)
        home = homes[origin]
        if home == module and origin.startswith("antiphon."):
            lines += [f"::: {module}.{name}", ""]
        elif home != module:
            elsewhere.append(f"| `{name}` | [`{home}`]({home}.md) |")
        else:
            elsewhere.append(f"| `{name}` | `{origin}` |")
    if elsewhere:
        lines += ["## Also here", "", "| name | is described in |", "|---|---|", *elsewhere, ""]
    return "\n".join(lines)


def file_of(module: str) -> Path | None:
    path = ROOT / "src" / Path(*module.split("."))
    return next((one for one in (path / "__init__.py", path.with_suffix(".py")) if one.exists()), None)


@functools.cache
def tree_of(module: str) -> ast.Module | None:
    file = file_of(module)
    return None if file is None else ast.parse(file.read_text())


def names_of(module: str) -> list[str]:
    """`__all__`, where it is a list of words. A page about those that are computed would be one about Starlette."""
    tree = tree_of(module)
    assert tree is not None, module
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
    raise SystemExit(f"error: {module} has no __all__, and docs/stability.md calls it public")


@functools.cache
def source_of(module: str, name: str) -> str:
    """Where a name is defined, through however many `from … import …`."""
    tree = tree_of(module)
    for node in [] if tree is None else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = absolute(module, node)
                if (alias.asname or alias.name) == name and file_of(f"{origin}.{alias.name}") is None:
                    return source_of(origin, alias.name)
    return f"{module}.{name}"


def absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return str(node.module)
    file = file_of(module)
    package = module.split(".") if file is not None and file.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


# Links


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {str(given[name]) for name in ("id", "name") if given.get(name)}
        for name in ("href", "src"):
            if given.get(name) is not None:
                self.links.append(str(given[name]))


def dead_links(site: Path) -> list[str]:
    """Links within the site that lead nowhere, anchors included. Asks nobody over the network."""
    pages = {path.resolve(): Page(path.read_text()) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":  # served at any depth
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                dead.append(f"{path.relative_to(site.resolve())}: {link} is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                dead.append(f"{path.relative_to(site.resolve())}: {link} has no such anchor")
    return sorted(set(dead))


if __name__ == "__main__":
    main(*sys.argv[1:])
