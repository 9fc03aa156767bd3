#!/usr/bin/env bash
# Sourced by quickstart.sh and test.sh. Makes the virtual environment if needed, and sets PYTHON to its interpreter.
#
# Set UMT_EXTRAS before sourcing: the extras that must be installed (default: train). Environment variables, all optional:
#   UMT_VENV         path of the environment (default: .venv of the repository)
#   UMT_PYTHON       Python that makes it (default: the first of python3, python3.13 ... python3.10 that is 3.10 or newer)
#   TORCH_INDEX_URL  package index for torch and torchvision, to get a CPU, ROCm or older CUDA build
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_venv="${UMT_VENV:-$_root/.venv}"
_extras="${UMT_EXTRAS:-train}"
PYTHON="$_venv/bin/python"

_find_python() {
    local name
    for name in ${UMT_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.10 or newer was found. Install one, or name it: UMT_PYTHON=/path/to/python3 bash $0" >&2
    return 1
}

# Describes what the environment was made for. A stamp that is not on record means that pip must run again.
_stamp="$(cksum < "$_root/pyproject.toml") $_root $_extras"
if [[ ! -x $PYTHON ]] || ! grep -qxF "$_stamp" "$_venv/umt-installed" 2> /dev/null; then
    if [[ ! -x $PYTHON ]]; then
        _maker="$(_find_python)" || exit 2
        echo "Making $_venv with $("$_maker" --version)."
        if ! "$_maker" -m venv "$_venv"; then
            rm -rf "$_venv"
            echo "python3 -m venv failed. On Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        fi
    fi
    echo "Installing umt-video[$_extras] into $_venv. The first time this fetches torch, which is some gigabytes."
    if [[ -n ${TORCH_INDEX_URL:-} ]]; then
        "$PYTHON" -m pip install --quiet torch torchvision --index-url "$TORCH_INDEX_URL"
    fi
    "$PYTHON" -m pip install --quiet --editable "${_root}[$_extras]"
    echo "$_stamp" >> "$_venv/umt-installed"
fi
