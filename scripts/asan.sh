#!/usr/bin/env bash
# The engine's tests on native modules built with the address and undefined-behaviour sanitizers, apart from the usual
# ones. Needs gcc. Arguments go to pytest in place of the folders below.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/asan
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
ANTIPHON_CFLAGS="-O1 -g -fno-omit-frame-pointer $flags" ANTIPHON_LDFLAGS="$flags" \
	.venv/bin/python setup.py -q build --force --build-lib "$out/lib" --build-temp "$out/tmp"

# Python frees little of what it holds at its end, so leaks are for tests/wire/test_memory.py to find. With its own
# allocator out of the way the sanitizer sees every object.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=$out/lib
.venv/bin/python -c '
import antiphon.wire as wire
assert wire.NATIVE and "build/asan" in wire.__file__, wire.__file__'
if [ $# -eq 0 ]; then
	# What is freed stays in quarantine for a while: nothing can be said of the size of the process.
	set -- tests/wire tests/fuzz tests/server --ignore tests/wire/test_memory.py
fi
exec .venv/bin/python -m pytest -q -p no:cacheprovider "$@"
