#!/usr/bin/env bash
# What only a GPU can tell, the quickest first, each part with a log of its own in the folder that is given: a part that
# fails does not keep the others from running, and the last line says which did.
#
#   PYTHON=.venv/bin/python tests/cuda/on_a_gpu.sh build/gpu              all of it, an hour or more
#   PYTHON=.venv/bin/python tests/cuda/on_a_gpu.sh build/gpu race epochs  the parts whose names begin so
#
# PYTHON: one that has minicvae with its tests' packages, CuPy and PyTorch.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=${1:-build/gpu}
shift || true
wanted=("$@")
known=(kernels agreement products-float32 products-tf32 epochs-graphs-1 epochs-graphs-0 race-float32 race-tf32 profile
    gradients tests-on-cuda tests-without-graphs sanitizer-memcheck sanitizer-racecheck sanitizer-synccheck)
for word in "${wanted[@]}"; do
    if ! printf '%s\n' "${known[@]}" | grep -q "^$word"; then
        echo "no part's name begins with $word; the parts are ${known[*]}"
        exit 2
    fi
done
mkdir -p "$out"
if ! nvidia-smi > "$out/nvidia-smi.log" 2>&1; then
    echo "no NVIDIA GPU is here: $(head -n 1 "$out/nvidia-smi.log")"
    exit 1
fi
failed=()

part() {
    local name=$1 begin=$SECONDS word chosen=${#wanted[@]}
    shift
    for word in "${wanted[@]}"; do
        [[ $name == "$word"* ]] && chosen=0
    done
    ((chosen)) && return
    echo "== $name: $*"
    if ! "$@" > "$out/$name.log" 2>&1; then
        failed+=("$name")
    fi
    tail -n 3 "$out/$name.log"
    echo "   ($((SECONDS - begin)) s)"
}

part kernels "$python" -m pytest -n 4 --device cuda -m cuda tests/cuda/test_kernels.py tests/cuda/test_graph.py

# Losses after 100 steps on either device, from the same seed.
part agreement "$python" tests/cuda/agreement.py

part products-float32 "$python" tests/cuda/race_products.py
part products-tf32 env CUPY_TF32=1 "$python" tests/cuda/race_products.py

# Epochs of 469 steps, as a user has them; the second epoch on is without compiling.
for graphs in 1 0; do
    part "epochs-graphs-$graphs" env "MINICVAE_CUDA_GRAPHS=$graphs" "$python" -m minicvae train mlp --epochs 10 \
        --batch-size 128 --device cuda --overwrite --out "$out/mlp-graphs-$graphs"
done

dense=(mlp latent2d mlp-small gaussian)
part race-float32 "$python" -m minicvae bench "${dense[@]}" conv --batch-size 128 --device cuda --against torch \
    --rounds 9 --json "$out/race-float32.json"
part race-tf32 env CUPY_TF32=1 "$python" -m minicvae bench "${dense[@]}" conv --batch-size 128 --device cuda \
    --against torch --rounds 9 --json "$out/race-tf32.json"
part profile "$python" -m minicvae bench mlp conv --batch-size 128 --device cuda --profile --json "$out/profile.json"

part gradients "$python" -m minicvae gradcheck all --device cuda
part tests-on-cuda "$python" -m pytest -n 4 --dist loadfile --device cuda -m "cuda and not slow"
part tests-without-graphs env MINICVAE_CUDA_GRAPHS=0 "$python" -m pytest -n 4 --dist loadfile --device cuda \
    -m "cuda and not slow" tests/test_training.py tests/test_training_errors.py tests/test_completion.py

# Each array with memory of its own, or the checker would see CuPy's pool and not where an array ends.
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
for tool in memcheck racecheck synccheck; do
    part "sanitizer-$tool" "$sanitizer" --tool "$tool" --error-exitcode 9 "$python" -m pytest --no-pool \
        --device cuda -m cuda tests/cuda/test_kernels.py
done

echo
if ((${#failed[@]})); then
    echo "failed: ${failed[*]} (logs in $out)"
    exit 1
fi
echo "all is well; results in $out"
