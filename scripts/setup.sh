#!/usr/bin/env bash
# Makes an environment. In .venv, from the lock files in requirements/:
#   scripts/setup.sh run      what serving needs
#   scripts/setup.sh dev      what the tests and the checks need too
# Beside it, with antiphon installed as a user gets it, so that .venv stays what it is:
#   scripts/setup.sh lowest   in .cache/lowest, the lowest versions that pyproject.toml promises (requirements/lowest.lock)
#   scripts/setup.sh newest   in .cache/newest, the newest of everything, bound by no lock
# And without antiphon:
#   scripts/setup.sh dist     in .cache/dist, what builds and checks a release (requirements/dist.lock)
#   scripts/setup.sh docs     in .cache/docs, what builds the site (requirements/docs.lock)
# Installs what is missing from the distribution when it may; says what it does. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

WHAT=${1:?run, dev, lowest, newest, dist or docs}
case $WHAT in
	run | dev) VENV=.venv ;;
	lowest | newest | dist | docs) VENV=.cache/$WHAT/venv ;;
	*) die "scripts/setup.sh: $WHAT is none of run, dev, lowest, newest, dist, docs" ;;
esac

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

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# Whether $VENV works, is of the interpreter that PYTHON names, if it names one, and was made where it stands: the
# scripts of an environment that was moved or copied run the old one.
venv_fits() {
	[ -x "$VENV/bin/python" ] && recent_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 &&
		{ [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$VENV/bin/python")" ]; } &&
		head -3 "$VENV/bin/pip" | grep -qF "$(pwd -P)/$VENV/bin/python"
}

make_venv() {
	venv_fits && return
	local python
	[ -z "${PYTHON:-}" ] || recent_enough "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11 or newer that starts"
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

# Its output is told when it fails, and not otherwise.
quietly() {
	local output
	output=$("$@" 2>&1 </dev/null) && return
	printf '%s\n' "$output" >&2
	die "this failed, with the output above: $*"
}

PIP() { quietly "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# The versions of a lock file and no others, each file with the hash that stands there.
install_locked() { PIP install --require-hashes --requirement "requirements/$1.lock"; }

# A copy to install from without --editable: nothing is built in this tree, and nothing that was built here is taken.
COPY=.cache/$WHAT/source
copy_sources() {
	rm -rf "$COPY"
	mkdir -p "$COPY"
	tar -c --exclude='*.so' --exclude='*.c' --exclude='*.egg-info' --exclude=__pycache__ \
		pyproject.toml setup.py MANIFEST.in README.md LICENSE src | tar -x -C "$COPY"
}

# Two of us at once would each pull the folder away under the other. (macOS has no flock; there, don't.)
mkdir -p .cache
exec 9>.cache/setup.lock
if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
	say "another setup is under way here: waiting for its end"
	flock 9
fi

make_venv
case $WHAT in dist | docs) ;; *) offer_compiler ;; esac
case $WHAT in
run)
	say "installing antiphon"
	install_locked run
	PIP install --no-deps --no-build-isolation --editable .
	;;
dev)
	say "installing antiphon and everything the tests use (first time: a minute or two)"
	install_locked dev
	PIP install --no-deps --no-build-isolation --editable .
	;;
lowest)
	say "installing antiphon and the lowest versions that pyproject.toml promises"
	install_locked lowest
	copy_sources
	PIP install --force-reinstall --no-deps --no-build-isolation "./$COPY"
	;;
dist | docs)
	if ! cmp -s "requirements/$WHAT.lock" "$VENV/.lock"; then # also after a change of the lock
		say "installing what requirements/$WHAT.lock names"
		install_locked "$WHAT"
		cp "requirements/$WHAT.lock" "$VENV/.lock"
	fi
	;;
newest)
	say "installing antiphon and the newest of everything"
	PIP install --upgrade 'pip>=25.1' # the first that reads dependency groups
	copy_sources
	PIP install --upgrade --upgrade-strategy eager --group dev "./$COPY[redis,metrics,jwt,testing]"
	;;
esac
[ "$VENV" != .venv ] || touch "$VENV/.installed-$WHAT"
