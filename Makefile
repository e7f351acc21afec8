# Two commands do all the set-up, in .venv:
#   make demo   trains on MNIST and draws the pictures
#   make test   passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test stand-in gpu check types mutants wheel torch nvrtc clean

demo: $(VENV)/demo.stamp
	$(BIN)/minicvae train latent2d --epochs 10 --overwrite --out runs/demo

test: $(VENV)/test.stamp
	$(BIN)/pytest -n 2 --dist loadfile

# The tests that take a device, on cuda, where there is no GPU: strict arrays in CuPy's place (tests/standin).
stand-in: $(VENV)/test.stamp
	$(BIN)/pytest -n 2 --dist loadfile --stand-in --device cuda -m "cuda and not slow and not many_draws"

# Everything that needs an NVIDIA GPU, in one go; what it finds stays in build/gpu. CUDA: cuda12 or cuda13. PARTS: by
# name, such as "race epochs"; all where none is given (tests/cuda/on_a_gpu.sh).
CUDA ?= cuda12
PARTS ?=
gpu:
	nvidia-smi > /dev/null
	$(MAKE) $(VENV)/test.stamp
	$(BIN)/pip install --quiet --editable ".[$(CUDA)]" torch==2.13.0
	PYTHON=$(BIN)/python tests/cuda/on_a_gpu.sh build/gpu $(PARTS)

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

# The type checker reads the installed package, because kernels/ is minicvae.kernels only there.
types: $(VENV)/test.stamp
	rm -rf build/types build/lib build/bdist.* && $(BIN)/pip install --quiet --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p minicvae

# Plants small bugs in the real source and reports which the tests do not notice (tests/mutation/README.md). SAMPLE=0
# plants them all, and a run that is broken off goes on from RESULTS the next time.
SAMPLE ?= 0
SEED ?= 0
RESULTS ?= build/mutants.csv
mutants: $(VENV)/test.stamp
	$(BIN)/python tests/mutation --sample $(SAMPLE) --seed $(SEED) --results $(RESULTS)

# The built distribution in an environment of its own, away from the sources.
wheel:
	rm -rf build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet .
	cd build/wheel && bin/minicvae train mlp-small --epochs 1 --limit 2000 --out run --quiet
	ls build/wheel/run/model.safetensors build/wheel/run/figures
	ls build/wheel/lib/python*/site-packages/minicvae/kernels/cuda/*.cu

# PyTorch for the cross-check of every gradient; the tests skip it, and say so, where it cannot be had.
torch: $(VENV)/test.stamp
	$(BIN)/pip install --quiet torch==2.13.0 || echo "torch 2.13.0 cannot be installed here: its cross-check is skipped"

# NVIDIA's compiler, which needs no GPU: the tests compile the CUDA kernels with it, or skip that and say so.
nvrtc: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --editable ".[nvrtc]" || echo "NVRTC cannot be installed here: no kernel is compiled for GPUs"

$(VENV)/demo.stamp: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
