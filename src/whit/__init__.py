"""Fit neural networks into the smallest part of a machine that still does the job.

Public names are imported on first use, so that `import whit` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_HOME = {
    "Batch": "whit.core.data",
    "Budget": "whit.core.budget",
    "Data": "whit.core.data",
    "Device": "whit.core.device",
    "GraphData": "whit.core.data",
    "Group": "whit.parts.group",
    "Hook": "whit.core.hook",
    "ImageData": "whit.core.data",
    "Packed": "whit.packing.packer",
    "Plan": "whit.core.hook",
    "Result": "whit.core.result",
    "Route": "whit.parts.route",
    "Run": "whit.core.run",
    "Scorecard": "whit.measure.scorecard",
    "SequenceData": "whit.core.data",
    "Settings": "whit.core.settings",
    "Split": "whit.core.data",
    "Task": "whit.core.task",
    "Technique": "whit.core.technique",
    "VectorData": "whit.core.data",
    "WhitError": "whit.errors",
    "array_task": "whit.tasks.own_arrays",
    "compare": "whit.comparison",
    "execute": "whit.core.execution",
    "load_result": "whit.result_folder",
    "pack": "whit.packing.packer",
    "spec": "whit.spec_strings",
    "task": "whit.spec_strings",
    "technique": "whit.core.technique",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name, or the subpackage `runtime`, on first use."""
    if name == "runtime":
        return import_module("whit.runtime")
    if name not in _HOME:
        raise AttributeError(f"module 'whit' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "runtime", "__version__"]
