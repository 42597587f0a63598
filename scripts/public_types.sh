#!/usr/bin/env bash
# Whether every public symbol has a type that all type checkers infer alike, and whether pyright refuses the mistakes that
# mypy refuses (tests/messages/typing_errors.py). Says where not.
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

if ! output=$(basedpyright --project tests/messages/pyright.json 2>&1); then
	printf '%s\n' "$output"
	die "an ignore that is unnecessary is a mistake that pyright lets pass; anything else is right, and pyright refuses it"
fi
