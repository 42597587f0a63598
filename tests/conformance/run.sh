#!/usr/bin/env bash
# The protocol suite against our server (--help for more); the first run builds it into .cache/autobahn.
cd "$(dirname "$0")/../.." || exit 2
PYTHON=python3
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python
exec "$PYTHON" -m tests.conformance "$@"
