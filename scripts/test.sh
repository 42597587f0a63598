#!/usr/bin/env bash
# The whole suite on the twin that was built, then the engine's part once more on the pure Python twin.
# Arguments go to pytest as they are, for one pass over what they name: scripts/test.sh tests/hub -k order
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PYTEST=(.venv/bin/python -m pytest -q)
WORKERS=${ANTIPHON_TEST_WORKERS:-$(n=$(nproc 2>/dev/null || echo 2); echo $((n > 4 ? 4 : n)))}
PARALLEL=(-n "$WORKERS" --dist loadgroup)
TWICE=(tests/wire tests/server tests/connection tests/matrix tests/testing)

if [ $# -gt 0 ]; then
	exec "${PYTEST[@]}" "$@"
fi

failed=0
native=$(.venv/bin/python -c 'from antiphon import server; print("native" if server.native else "pure")')
say "the whole suite ($native engine, $WORKERS workers)"
"${PYTEST[@]}" "${PARALLEL[@]}" </dev/null || failed=1
if [ "$native" = native ]; then
	existing=()
	for folder in "${TWICE[@]}"; do [ -d "$folder" ] && existing+=("$folder"); done
	say "the engine's tests once more on the pure Python twin"
	ANTIPHON_PURE=1 "${PYTEST[@]}" "${PARALLEL[@]}" "${existing[@]}" </dev/null || failed=1
fi
exit $failed
