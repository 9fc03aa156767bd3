#!/usr/bin/env bash
# Runs the tests: makes .venv if needed, then starts pytest with the given arguments:
#   bash scripts/test.sh                       the default selection
#   bash scripts/test.sh -m slow               tests that take minutes
#   bash scripts/test.sh tests/models -k rect  a part of the tests
# The tests of DeepSpeed are skipped unless UMT_EXTRAS=train,deepspeed,dev is set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# scripts/env.sh makes .venv if it is missing or lacks one of these extras, and sets PYTHON to its interpreter.
UMT_EXTRAS="${UMT_EXTRAS:-train,dev}"
source scripts/env.sh
exec "$PYTHON" -m pytest "$@"
