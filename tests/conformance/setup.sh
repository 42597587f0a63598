#!/usr/bin/env bash
# Builds the unmodified Autobahn|Testsuite, a Python 2.7 program on PyPI, into $CONFORMANCE_HOME. Some 20 seconds; needs a
# C compiler and a python2.7 (PY2= names it).
set -eo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${CONFORMANCE_HOME:?where to build}
py2=${PY2:-$( (ls "$HOME"/.pyenv/versions/2.7*/bin/python2.7; command -v python2.7) 2>/dev/null | head -1 || true)}
[ -x "$py2" ] || { echo "no python2.7 found (set PY2=)" >&2; exit 2; }

mkdir -p "$home"
export PIP_DISABLE_PIP_VERSION_CHECK=1
quiet() { "$@" 2>&1 | grep -vE 'DEPRECATION|WARNING' || true; }

# The last virtualenv that can make an environment for Python 2.7.
[ -x "$home/tools/bin/virtualenv" ] || { python3 -m venv "$home/tools"; "$home/tools/bin/pip" -q install 'virtualenv==20.15.1'; }
"$home/tools/bin/virtualenv" -q -p "$py2" "$home/py27"
quiet "$home/py27/bin/pip" install -q --no-build-isolation incremental==16.10.1 setuptools==44.0.0 wheel==0.36.2
quiet "$home/py27/bin/pip" install -q --no-build-isolation -r "$here/requirements-py27.txt"
"$home/py27/bin/wstest" -a >/dev/null 2>&1
