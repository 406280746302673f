#!/usr/bin/env bash
# All GPU checks and benchmarks in one call, for a machine with a CUDA GPU that is at hand for a short time.
#     bash benchmarks/on_gpu.sh [python]
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
export PYTHONPATH=".:plugins/deezer:plugins/essentia${PYTHONPATH:+:$PYTHONPATH}"
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU")'
"$python" -m pytest -q -m gpu
"$python" benchmarks/speed/betweenness.py --device cuda --alone
"$python" benchmarks/speed/captum_tcav.py --parts growth,rate --device cuda
