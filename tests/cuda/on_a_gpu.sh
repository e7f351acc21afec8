#!/usr/bin/env bash
# What only a GPU can tell, each part with a log of its own in the folder that is given: a part that fails does not keep
# the others from running, and the last line says which did.
#
#   BIN=.venv/bin tests/cuda/on_a_gpu.sh build/gpu
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-.venv/bin}
out=${1:-build/gpu}
mkdir -p "$out"
failed=()

part() {
    local name=$1
    shift
    echo "== $name: $*"
    if ! "$@" > "$out/$name.log" 2>&1; then
        failed+=("$name")
    fi
    tail -n 3 "$out/$name.log"
}

nvidia-smi > "$out/nvidia-smi.log"
part tests "$bin/pytest" --device cuda -m "cuda and not slow"
part tests-without-graphs env MINICVAE_CUDA_GRAPHS=0 "$bin/pytest" --device cuda -m "cuda and not slow" \
    tests/test_training.py tests/test_training_errors.py tests/test_completion.py
part gradients "$bin/minicvae" gradcheck all --device cuda

# Each array with memory of its own, or the checker would see CuPy's pool and not where an array ends.
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
for tool in memcheck racecheck synccheck; do
    part "sanitizer-$tool" "$sanitizer" --tool "$tool" --error-exitcode 9 "$bin/python" -m pytest --no-pool \
        --device cuda -m cuda tests/cuda/test_kernels.py
done

# Losses after 100 steps on either device, from the same seed.
part agreement "$bin/python" tests/cuda/agreement.py

part products-float32 "$bin/python" tests/cuda/race_products.py
part products-tf32 env CUPY_TF32=1 "$bin/python" tests/cuda/race_products.py

dense=(mlp latent2d mlp-small gaussian)
part race-float32 "$bin/minicvae" bench "${dense[@]}" conv --batch-size 128 --device cuda --against torch --rounds 9 \
    --json "$out/race-float32.json"
part race-tf32 env CUPY_TF32=1 "$bin/minicvae" bench "${dense[@]}" conv --batch-size 128 --device cuda --against torch \
    --rounds 9 --json "$out/race-tf32.json"
part profile "$bin/minicvae" bench mlp conv --batch-size 128 --device cuda --profile --json "$out/profile.json"
for graphs in 0 1; do
    part "epochs-graphs-$graphs" env "MINICVAE_CUDA_GRAPHS=$graphs" "$bin/minicvae" train mlp --epochs 10 \
        --batch-size 128 --device cuda --overwrite --out "$out/mlp-graphs-$graphs"
done

echo
if ((${#failed[@]})); then
    echo "failed: ${failed[*]} (logs in $out)"
    exit 1
fi
echo "all is well; results in $out"
