#!/usr/bin/env bash
# What the tests need beyond PyPI: a Chromium, a redis-server, openssl. Installs what is missing, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

# Ubuntu's chromium packages only fetch a snap, which containers cannot run: there Playwright's own build is used.
apt_has_chromium() {
	[ -r /etc/os-release ] && ! grep -q '^ID=ubuntu' /etc/os-release
}

if ! .venv/bin/python scripts/chromium.py >/dev/null; then
	say "the browser tests need Chromium"
	{ apt_has_chromium && install chromium; } ||
		{
			say "fetching Playwright's Chromium"
			.venv/bin/python -m playwright install chromium >&2 &&
				{ ! can_install "Chromium's libraries" || as_root .venv/bin/python -m playwright install-deps chromium >&2; }
		} || true
	.venv/bin/python scripts/chromium.py >/dev/null || die "no Chromium could be installed" \
		"as root: apt-get install chromium   (Ubuntu: .venv/bin/python -m playwright install --with-deps chromium)" \
		"or name one: CHROMIUM=/path/to/chromium make test"
fi

if ! command -v redis-server >/dev/null 2>&1; then
	say "the hub's tests start their own redis-server"
	install redis-server || die "no redis-server could be installed" "as root: apt-get install redis-server"
fi

if ! command -v openssl >/dev/null 2>&1; then
	say "the tests of TLS make their certificates with openssl"
	install openssl || die "no openssl could be installed" "as root: apt-get install openssl"
fi
