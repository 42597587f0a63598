#!/usr/bin/env bash
# The whole suite on the twin that was built, then the engine's part once more on the pure Python twin.
#   scripts/test.sh tests/hub -k order    arguments go to pytest as they are, for one pass over what they name
#   scripts/test.sh lowest | newest ...   the same in the environment that `scripts/setup.sh lowest | newest` makes
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

VENV=.venv
ALL=() # what one pass runs, where it is not the whole suite
case ${1:-} in
lowest)
	VENV=.cache/lowest/venv
	# What can break with another version of a library: the parts that import one, with a server, its workers and a Redis.
	# Not the engine's own parts, which import none, and not FastAPI's and Starlette's own tests, which hold for one release.
	ALL=(tests/app tests/asyncapi tests/dependencies tests/dropin tests/examples tests/gate tests/matrix tests/messages
		tests/observability tests/routing tests/security tests/testclient tests/testing tests/cli/test_run.py
		tests/connection/test_servers.py
		tests/connection/test_websocket.py tests/hub/test_redis.py tests/hub/test_redis_contract.py
		tests/server/test_asgi.py tests/server/test_http.py)
	export ANTIPHON_TEST_EXEC=1 # each process from its first import on
	shift
	;;
newest)
	VENV=.cache/newest/venv
	shift
	;;
esac

PYTEST=("$VENV/bin/python" -m pytest -q)
# Three for each core: half of the tests wait for processes, browsers and leases most of their time.
WORKERS=${ANTIPHON_TEST_WORKERS:-$(n=$(nproc 2>/dev/null || echo 2); echo $((n > 2 ? 6 : 3 * n)))}
PARALLEL=(-p tests.parallel --processes "$WORKERS")
# What has the engine in it, and has not run on the pure twin in the first pass: tests/server and two files of wire are
# parametrised over both twins, the cells of other servers have no engine of ours, and the plugin's tests start pytest,
# not frames.
TWICE=(tests/wire tests/connection tests/matrix tests/testing
	--ignore tests/wire/test_parser.py --ignore tests/wire/test_frames.py --ignore tests/testing/test_plugin.py
	-k "not (hypercorn or wsproto or websockets-sansio)")

if [ $# -gt 0 ]; then
	exec "${PYTEST[@]}" "$@"
fi

failed=0
native=$("$VENV/bin/python" -c 'from antiphon import server; print("native" if server.native else "pure")')
if [ ${#ALL[@]} -gt 0 ]; then
	say "what other versions of a library can break ($native engine, $WORKERS workers)"
	exec "${PYTEST[@]}" "${PARALLEL[@]}" "${ALL[@]}" </dev/null
fi
say "the whole suite ($native engine, $WORKERS workers)"
"${PYTEST[@]}" "${PARALLEL[@]}" </dev/null || failed=1
if [ "$native" = native ]; then
	say "the engine's tests once more on the pure Python twin"
	ANTIPHON_PURE=1 "${PYTEST[@]}" "${PARALLEL[@]}" "${TWICE[@]}" </dev/null || failed=1
fi
if ! missing=$("$VENV/bin/python" -m tests.conformance.python2); then
	say "NOT TESTED: the protocol suite (tests/conformance was skipped): $missing"
	[ -z "${GITHUB_ACTIONS:-}" ] || echo "::warning::tests/conformance was skipped: $missing"
fi
exit $failed
