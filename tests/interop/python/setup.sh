#!/usr/bin/env bash
# Makes the Python environment of the interop checks: the official compressed-tensors stack on the CPU.
#
# Needs: python3 >= 3.10 with venv, PyPI, about 6 GB of disk (torch from PyPI brings its CUDA libraries; the checks run on the CPU).
# Goes to BITWRIGHT_PYTHON_VENV, or to a new temporary folder; never inside the repository. Prints the line to export.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
repository="$(cd "$here/../../.." && pwd -P)"
venv="${BITWRIGHT_PYTHON_VENV:-$(mktemp -d)/bitwright-python}"

mkdir -p "$(dirname "$venv")"
venv="$(cd "$(dirname "$venv")" && pwd -P)/$(basename "$venv")"
case "$venv/" in
  "$repository"/*)
    echo "BITWRIGHT_PYTHON_VENV=$venv is inside the repository; choose a folder outside it" >&2
    exit 2
    ;;
esac

python3 -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "python3 is too old: 3.10 or newer is needed")'
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --requirement "$here/requirements.txt" >&2
"$venv/bin/python" - >&2 <<'PYTHON'
import compressed_tensors, safetensors, torch, transformers
print(f"torch {torch.__version__}, transformers {transformers.__version__}, compressed-tensors {compressed_tensors.__version__}")
PYTHON
echo "export BITWRIGHT_PYTHON_VENV=$venv"
