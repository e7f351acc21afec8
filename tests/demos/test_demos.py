"""Every demo runs in a tiny setting, as a user starts it: without a warning, and it leaves its pictures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMOS = Path(__file__).parents[2] / "demos"
PICTURES = {
    "adversarial": ["latents.png"],
    "check_your_own_layer": ["mended.png", "wrong.png"],
    "collapse": ["collapse.png"],
    "convolutional": ["generated.png"],
    "digits_on_demand": [
        "even.png",
        "generated.png",
        "generated_beta_4.png",
        "latent_sizes.png",
        "losses.png",
        "one_latent.png",
        "style.png",
        "style_beta_1.png",
        "ten_latents.png",
    ],
    "embedding": ["generated.png", "posterior_means.png"],
    "gaussian": ["one_latent.png", "other_class.png", "posterior_means.png", "walks.png"],
    "importance_weighted": sorted(
        [
            f"{kind}-{k}.{suffix}"
            for kind in ("vae", "iwae")
            for k in (1, 5, 50)
            for suffix in ("checkpoint", "safetensors")
        ]
        + ["dimensions.png", "table.txt"]
    ),
    "latent_space": [
        "draw_a_five.png",
        "manifold.png",
        "one_class.png",
        "posterior_means.png",
        "reconstructions.png",
        "walks.png",
    ],
    "pathways": ["mlp.png", "pathways.png"],
    "quadrants": [*(f"quadrants-{k}.{suffix}" for k in (1, 2, 3) for suffix in ("png", "safetensors")), "table.txt"],
    "two_conditions": ["digit_and_thickness.png", "slant.png"],
}


def run(name, cache, *words):
    environment = os.environ | {"PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(
        [sys.executable, DEMOS / f"{name}.py", *words], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", PICTURES)
def test_a_demo_runs_without_a_warning_and_leaves_its_files(name, tmp_path):
    small = () if name == "check_your_own_layer" else ("--epochs", "1", "--limit", "300")
    done = run(name, tmp_path / "cache", *small, "--out", tmp_path / "made")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(PICTURES[name])


@pytest.mark.parametrize("name", PICTURES)
def test_a_demo_knows_its_full_protocol_and_refuses_what_it_does_not_know(name, tmp_path):
    done = run(name, tmp_path, "--out", tmp_path / "made", "--full", "--epcohs", "3")
    assert done.returncode == 2
    assert done.stderr.endswith("error: unrecognised arguments: --epcohs 3\n")
    assert not (tmp_path / "made").exists()


def test_every_demo_is_tested():
    demos = {path.stem for path in DEMOS.glob("*.py")}
    assert demos == set(PICTURES)


def test_a_rectangle_can_be_hidden_in_place_of_quadrants(tmp_path):
    words = ("--epochs", "1", "--limit", "300", "--rectangle", "8", "8", "12", "12", "--out", tmp_path)
    done = run("quadrants", tmp_path / "cache", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["rectangle.png", "rectangle.safetensors", "table.txt"]
