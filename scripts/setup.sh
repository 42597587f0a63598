#!/usr/bin/env bash
# Makes .venv: `scripts/setup.sh run` with what serving needs, `scripts/setup.sh dev` with what the tests need too.
# Installs what is missing from the distribution when it may; says what it does. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

WHAT=${1:?run or dev}
VENV=.venv

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
	local candidate
	for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
		if command -v "$candidate" >/dev/null 2>&1 && recent_enough "$candidate"; then
			command -v "$candidate"
			return
		fi
	done
	return 1
}

# pip's own wheel runs from the archive: this is how a Python without ensurepip (Debian without python3-venv) gets pip.
bootstrap_pip() {
	say "no ensurepip here: fetching pip from PyPI"
	"$VENV/bin/python" - "$VENV" <<-'PY'
		import hashlib, json, pathlib, subprocess, sys, tempfile, urllib.parse, urllib.request

		INDEX = "https://pypi.org/pypi/pip/json"
		with urllib.request.urlopen(INDEX, timeout=60) as answer:
		    files = json.load(answer)["urls"]
		wheel = next(file for file in files if file["packagetype"] == "bdist_wheel")
		with urllib.request.urlopen(urllib.parse.urljoin(INDEX, wheel["url"]), timeout=60) as answer:
		    data = answer.read()
		if hashlib.sha256(data).hexdigest() != wheel["digests"]["sha256"]:
		    sys.exit("the pip wheel does not have the digest that PyPI names")
		with tempfile.TemporaryDirectory() as folder:
		    path = pathlib.Path(folder, wheel["filename"])
		    path.write_bytes(data)
		    subprocess.run([sys.executable, f"{path}/pip", "install", "--quiet", "--no-index", str(path)], check=True)
	PY
}

make_venv() {
	if [ -x "$VENV/bin/python" ] && recent_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
		return
	fi
	local python
	python=$(find_python) || {
		install python3 && python=$(find_python)
	} || die "antiphon needs Python 3.11 or newer; none was found" \
		"install one (Debian 12, Ubuntu 24.04: apt-get install python3) or name it: make PYTHON=/path/to/python3"
	say "virtual environment in $VENV with $("$python" --version) ($python)"
	rm -rf "$VENV"
	if ! "$python" -c 'import ensurepip' 2>/dev/null; then
		local version
		version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
		install "python$version-venv" || install python3-venv || note "python3-venv is missing and could not be installed"
	fi
	if "$python" -c 'import ensurepip' 2>/dev/null; then
		"$python" -m venv "$VENV"
	else
		"$python" -m venv --without-pip "$VENV"
		bootstrap_pip
	fi
}

# The native twin wants a C compiler and Python's headers; without them the pure Python twin does the same, slower.
native_possible() {
	command -v "${CC:-cc}" >/dev/null 2>&1 &&
		"$VENV/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

offer_compiler() {
	[ "${ANTIPHON_PURE:-}" = 1 ] && return
	native_possible && return
	local version
	version=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	install gcc libc6-dev "python$version-dev" || true
	native_possible && return
	note "no C compiler or no Python headers: the pure Python twin will run (same behaviour, slower)"
	note "for the native one, as root: apt-get install gcc libc6-dev python$version-dev; then: make clean, and again"
}

make_venv
offer_compiler
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$VENV/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' # 25.1 is the first that reads dependency groups
if [ "$WHAT" = dev ]; then
	say "installing antiphon and everything the tests use (first time: a minute or two)"
	"$VENV/bin/python" -m pip install --quiet --editable '.[redis,metrics,testing]' --group dev
else
	say "installing antiphon"
	"$VENV/bin/python" -m pip install --quiet --editable .
fi
touch "$VENV/.installed-$WHAT"
