#!/usr/bin/env bash
# Builds the benchmark environment (.cache/bench-env: antiphon and its peers) on first use and when the list of peers
# has changed, and measures; arguments go to benchmarks/run.py. Needs gcc; node and npm for node's `ws`, which is left out where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
env=.cache/bench-env
if ! cmp -s benchmarks/requirements.txt "$env/installed.txt"; then # never installed, not to the end, or another list
    "${PYTHON:-.venv/bin/python}" -m venv "$env"
    "$env/bin/pip" install --quiet --upgrade pip
    "$env/bin/pip" install --quiet -r benchmarks/requirements.txt
    cp benchmarks/requirements.txt "$env/installed.txt"
fi
"$env/bin/pip" install --quiet ".[redis]"
exec "$env/bin/python" benchmarks/run.py "$@"
