#!/usr/bin/env bash
# commit-msg hook: a subject of at most 72 characters, so that `git log --oneline` fits a screen, then an empty line.
set -euo pipefail
export LC_ALL=C.UTF-8
message=$(grep -v '^#' "$1" || true)
subject=${message%%$'\n'*}
[ ${#subject} -le 72 ] || {
	printf 'the subject has %d characters, 72 are the most; say the rest in the body, after an empty line:\n    %s\n' \
		${#subject} "$subject" >&2
	exit 1
}
second=$(sed -n 2p <<<"$message")
[ -z "$second" ] || {
	printf 'an empty line belongs between the subject and the body:\n    %s\n' "$second" >&2
	exit 1
}
