#!/usr/bin/env bash
# Whether every public symbol has a type that all type checkers infer alike. Says where not.
# basedpyright's modules are all that have no underscore: more than docs/stability.md calls public.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export PATH=$PWD/.venv/bin:$PATH # basedpyright looks for the package with the `python` that it finds
for package in antiphon pytest_antiphon; do
	if ! output=$(basedpyright --verifytypes "$package" --ignoreexternal 2>&1); then
		# What is only "partially" unknown follows from the rest.
		grep -E '(error|: error): ' <<<"$output" | grep -v 'partially unknown' || printf '%s\n' "$output"
		die "types of $package are incomplete: annotate what is named above"
	fi
	printf '%s: %s public symbols, all with a known type\n' "$package" \
		"$(sed -nE 's/^Symbols exported by .*: ([0-9]+)$/\1/p' <<<"$output")"
done
