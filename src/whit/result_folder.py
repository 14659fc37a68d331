"""Read back what `Result.save` wrote, in any process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from whit.core.model_sizes import fit_sizes
from whit.core.result import Result
from whit.core.settings import Settings
from whit.errors import DataError
from whit.spec_strings import spec, task

_KEYS = ("task", "spec", "seed", "settings", "choices", "provenance")


def load_result(folder: str | Path) -> Result:
    """Rebuild a saved result: task and technique from their references, weights from the file.

    The model is built as the run built it (same choices), prepared and finished by the
    technique, then filled with the stored tensors, whose shapes win over the built ones.

    Raises:
        DataError: the folder holds no result, or one that does not fit the model.
    """
    folder = Path(folder)
    row = _read_row(folder)
    made_task = task(row["task"])
    technique = spec(row["spec"])
    if row["choices"] is None:
        raise DataError(
            f"The model in '{folder}' was composed by the procedure of '{row['spec']}' and "
            "cannot be rebuilt from choices. Its packed file model.whit can be used, or run the "
            "technique again."
        )
    with torch.random.fork_rng(devices=[]):
        data = technique.prepare_data(made_task.load().sealed())
        model = made_task.build_model(data, row["choices"])
        model = technique.finish_model(technique.prepare_model(model, data), data)
    _fill(model, _read_tensors(folder), folder)
    return Result(
        model=model.eval(),
        scorecard=None,
        spec=row["spec"],
        provenance=row["provenance"],
        task=row["task"],
        seed=row["seed"],
        settings=_settings(row, folder),
        choices=row["choices"],
        history=row.get("history", []),
        notes=row.get("notes", {}),
    )


def _read_row(folder: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise DataError(
            f"'{folder}' holds no result.json. Give the folder of a finished run, as printed by "
            "whit run or whit compare."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"'{folder / 'result.json'}' cannot be read: {error}.") from None
    lacks = [key for key in _KEYS if not isinstance(row, dict) or key not in row]
    if lacks:
        raise DataError(
            f"'{folder / 'result.json'}' is no result: it lacks {', '.join(lacks)}. Run it again."
        )
    if not isinstance(row["choices"], dict | None) or not isinstance(row["settings"], dict):
        raise DataError(f"'{folder / 'result.json'}' was edited or is damaged. Run it again.")
    return row


def _settings(row: dict[str, Any], folder: Path) -> Settings:
    try:
        return Settings(**row["settings"])
    except TypeError:
        raise DataError(
            f"'{folder / 'result.json'}' has settings that this version does not know."
        ) from None


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"'{path}' cannot be read: {error}. Run it again.") from None


def _fill(model: nn.Module, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    owners = {name: (m, key) for name, m, key in _slots(model)}
    if set(owners) != set(tensors):
        odd = sorted(set(owners) ^ set(tensors))[:3]
        raise DataError(
            f"'{folder}' does not fit the model that its task and technique build now (for example "
            f"{odd}). Either the code has changed since; then run it again. Or finish_model makes "
            "other tensors for other weights; its packed file model.whit can be used."
        )
    # Tied weights stay tied; the old tensor is kept so that no new one gets its number.
    changed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, (module, key) in owners.items():
        current, stored = getattr(module, key), tensors[name]
        if current.shape == stored.shape and current.dtype == stored.dtype:
            current.data = stored
        else:
            if isinstance(current, nn.Parameter):
                stored = nn.Parameter(stored, current.requires_grad)
            setattr(module, key, changed.setdefault(id(current), (stored, current))[0])
    fit_sizes(model)


def _slots(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    found = []
    state = model.state_dict()
    for prefix, module in model.named_modules():
        for key in (*module._parameters, *module._buffers):
            name = f"{prefix}.{key}" if prefix else key
            if name in state:
                found.append((name, module, key))
    return found
