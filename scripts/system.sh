#!/usr/bin/env bash
# What the tests need beyond PyPI: a Chromium, Node.js with npm, a redis-server, openssl, nginx, HAProxy, Caddy, and
# for the protocol suite a Python 2.7. Installs what is missing, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

export PLAYWRIGHT_BROWSERS_PATH=${PLAYWRIGHT_BROWSERS_PATH:-$PWD/.cache/playwright} # as in scripts/chromium.py

has_chromium() { .venv/bin/python scripts/chromium.py >/dev/null; }

# Ubuntu's chromium packages only fetch a snap, which containers cannot run: there Playwright's own build is used.
apt_has_chromium() {
	[ -r /etc/os-release ] && ! grep -q '^ID=ubuntu' /etc/os-release
}

chromium_from_playwright() {
	say "fetching Playwright's Chromium"
	.venv/bin/python -m playwright install chromium >&2 || return 1
	if can_install "Chromium's libraries"; then as_root .venv/bin/python -m playwright install-deps chromium >&2; fi
}

missing=()
# need COMMAND WHY [PACKAGE]: from the package of the same name, or of that one.
need() {
	command -v "$1" >/dev/null 2>&1 && return
	say "$2"
	install "${3:-$1}" || missing+=("${3:-$1}")
}

if ! has_chromium; then
	say "the browser tests need Chromium"
	{ apt_has_chromium && install chromium; } || chromium_from_playwright || true
	has_chromium || missing+=(chromium)
fi
# The same browser without windows spares a run a minute of CPU; the tests run without it too, so nobody is asked for a
# password.
if [ "$(id -u)" -eq 0 ] && ! command -v chromium-headless-shell >/dev/null &&
	apt-cache show chromium-headless-shell >/dev/null 2>&1; then
	say "most browser tests run in Chromium's headless shell"
	install chromium-headless-shell || true
fi
need redis-server "the hub's tests start their own redis-server"
need node "the JavaScript client is tested in node, and documents are judged by AsyncAPI's own parser there" nodejs
need npm "that parser, and the TypeScript that checks clients, come from npm"
need openssl "the tests of TLS make their certificates with openssl"
PATH=$PATH:/usr/sbin need nginx "the documents' configuration for nginx is tested with nginx"
PATH=$PATH:/usr/sbin need haproxy "the documents' configuration for HAProxy is tested with HAProxy"
need caddy "the documents' configuration for Caddy is tested with Caddy"

# Few distributions have one still, so the suite is skipped by name where there is none, and scripts/test.sh says so.
has_python2() { .venv/bin/python -m tests.conformance.python2 >/dev/null; }
if ! has_python2 && apt-cache show python2.7-dev >/dev/null 2>&1; then
	say "the protocol suite is a Python 2.7 program"
	install python2.7-dev || true
fi
has_python2 || note "$(.venv/bin/python -m tests.conformance.python2 || true); tests/conformance will be skipped"

[ ${#missing[@]} -eq 0 ] || die "what the tests need is missing and could not be installed: ${missing[*]}" \
	"as root: apt-get install ${missing[*]}" \
	"Chromium also: .venv/bin/python -m playwright install --with-deps chromium   (Ubuntu has no package of it)" \
	"or name one: CHROMIUM=/path/to/chromium make test"
