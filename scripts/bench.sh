#!/usr/bin/env bash
# Builds the benchmark environment (.cache/bench-env: antiphon and its peers) on first use and measures; arguments go to
# benchmarks/run.py. Needs gcc; node and npm for node's `ws`, which is left out where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
env=.cache/bench-env
if [ ! -x "$env/bin/uvicorn" ]; then
    "${PYTHON:-.venv/bin/python}" -m venv "$env"
    "$env/bin/pip" install --quiet --upgrade pip
    "$env/bin/pip" install --quiet -r benchmarks/requirements.txt
fi
"$env/bin/pip" install --quiet ".[redis]"
exec "$env/bin/python" benchmarks/run.py "$@"
