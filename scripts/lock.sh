#!/usr/bin/env bash
# Renews requirements/*.lock from pyproject.toml. Every version carries the hashes of all its files on PyPI, so a lock
# holds for every platform and every Python from 3.11 on. Arguments go to uv: scripts/lock.sh --upgrade-package fastapi
#   run.lock     what serving needs, and what builds the native twin
#   dev.lock     the same, the extras, and everything the tests and the checks use
#   lowest.lock  the lowest versions that pyproject.toml promises, with today's tests
#   dist.lock    what builds and checks a release
#   docs.lock    what builds the site
# and tests/conformance/virtualenv.lock, the last that makes environments for Python 2.7 (*-py27.lock have no newer ones).
# Without arguments everything becomes the newest there is.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

UV=0.13.9 # the resolver is part of the answer
tools=.cache/lock
if ! "$tools/bin/uv" --version 2>/dev/null | grep -qF "uv $UV"; then
	rm -rf "$tools"
	.venv/bin/python -m venv "$tools"
	"$tools/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV"
fi

# The index is PyPI whatever this machine is set up to use: the hashes must be those that everybody gets.
unset UV_INDEX UV_DEFAULT_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_CONSTRAINT UV_OVERRIDE
compile() {
	"$tools/bin/uv" pip compile --quiet --no-config --cache-dir "$tools/cache" \
		--universal --python-version 3.11 --no-annotate --generate-hashes --custom-compile-command "make lock" "$@"
}

[ $# -gt 0 ] || set -- --upgrade
mkdir -p requirements
say "requirements/dev.lock"
compile "$@" --all-extras --group dev pyproject.toml --output-file requirements/dev.lock
say "requirements/run.lock"
compile --upgrade --group build --constraints requirements/dev.lock pyproject.toml --output-file requirements/run.lock
say "requirements/lowest.lock"
compile --resolution lowest-direct --all-extras --group build --upgrade pyproject.toml --output-file "$tools/floors.txt"
compile "$@" --all-extras --group build --group test --constraints "$tools/floors.txt" pyproject.toml --output-file requirements/lowest.lock
say "requirements/dist.lock"
compile "$@" --group dist --output-file requirements/dist.lock
say "requirements/docs.lock"
compile "$@" --group docs --output-file requirements/docs.lock
say "tests/conformance/virtualenv.lock"
echo "virtualenv==20.21.1" >"$tools/virtualenv.in"
compile "$tools/virtualenv.in" --output-file tests/conformance/virtualenv.lock
