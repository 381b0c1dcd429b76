#!/usr/bin/env bash
# Runs all checks that need a GPU, in about ten minutes, without network access:
#
#   bash benchmarks/gpu.sh OUT [WHEELS]
#
# First it compares the layers with PyTorch's stored results, then it runs the benchmarks; OUT gets
# gpu.json and the two logs. WHEELS is a folder of wheels that the machine's Python lacks.
set -uo pipefail
out=${1:?usage: bash benchmarks/gpu.sh OUT [WHEELS]}
cd "$(dirname "$0")/.."
mkdir -p "$out"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "${2:-}" ]; then
    python3 -m pip install -q --no-index --no-deps --target "$site" "$2"/*.whl || exit
fi
export JAX_PLATFORMS=cuda,cpu PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

JAX_PLATFORMS=cuda timeout 100 python3 -m pytest -n 0 -p no:cacheprovider \
    -k "not sharded" tests/models/test_norm_goldens.py >"$out/goldens.log" 2>&1
echo "goldens on the GPU: exit code $?, $(tail -1 "$out/goldens.log")"

timeout 480 python3 -m benchmarks.run --minutes 7 --rounds 9 \
    --suite steps guard chunks compiler norms overhead save memory \
    --torch_forms plain channels_last compiled --out "$out/gpu.json" 2>&1 | tee "$out/benchmarks.log"
