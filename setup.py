"""Packaging of minicvae. `kernels/` stands beside `minicvae/` and is installed as `minicvae.kernels`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

TEST = [
    *("pytest>=8", "pytest-xdist>=3", "hypothesis>=6.100", "scipy>=1.13", "threadpoolctl>=3.5"),
    *("ruff>=0.15", "mypy>=1.18"),
]

setup(
    name="minicvae",
    version="0.1.0",
    description="Conditional variational autoencoders from the arrays up, with hand-written gradients",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["minicvae", "minicvae.*"]), "minicvae.kernels", "minicvae.kernels.cuda"],
    package_dir={"minicvae.kernels": "kernels"},
    package_data={
        "minicvae": ["py.typed"],
        "minicvae.datasets": ["mnist/*"],
        "minicvae.kernels": ["*.md"],
        "minicvae.kernels.cuda": ["*.cu", "*.cuh", "*.md"],
    },
    install_requires=[
        "numpy>=2.0",
        "numba>=0.62",
        "matplotlib>=3.9",
        "rich>=13",
        "safetensors>=0.4.5",
        "pooch>=1.8",
        "platformdirs>=4",
    ],
    extras_require={
        "cuda12": ["cupy-cuda12x[ctk]>=14"],
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
        "test": TEST,
        "torch": ["torch==2.13.0"],
        "nvrtc": ["nvidia-cuda-nvrtc-cu12>=12.4,<12.10"],
        "bench": ["torch==2.13.0", "jax>=0.7"],
    },
    entry_points={"console_scripts": ["minicvae = minicvae.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
