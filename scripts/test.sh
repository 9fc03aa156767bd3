#!/usr/bin/env bash
# Passes the tests: makes .venv if need be, then runs pytest. Arguments go to pytest:
#   bash scripts/test.sh                       the default selection
#   bash scripts/test.sh -m slow               what takes minutes
#   bash scripts/test.sh tests/models -k rect  a part
# UMT_EXTRAS=train,deepspeed,dev adds what the tests of DeepSpeed need; they skip without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# scripts/env.sh makes .venv when it is missing or lacks one of these extras, and sets PYTHON to its interpreter.
UMT_EXTRAS="${UMT_EXTRAS:-train,dev}"
source scripts/env.sh
exec "$PYTHON" -m pytest "$@"
