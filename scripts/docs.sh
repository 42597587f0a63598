#!/usr/bin/env bash
# Builds the site in .cache/docs/site; `scripts/docs.sh serve` shows it while you write.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh docs
exec .cache/docs/venv/bin/python scripts/site.py "$@"
