"""What a run leaves: the model, its scorecard, and how it came about."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn

from whit.atomic_files import Writer, write_together
from whit.core.settings import Settings
from whit.errors import WhitError

if TYPE_CHECKING:
    from whit.measure.scorecard import Scorecard
    from whit.packing.packer import Packed

RESULT_SCHEMA = 1


@dataclass(frozen=True)
class Result:
    """A trained model with its measurements.

    Attributes:
        model: trained and finished, in evaluation mode.
        scorecard: all measured numbers; None on ranks other than 0, and of a loaded result.
        spec: of the technique.
        provenance: versions, machine, commit, time.
        task: the reference that makes the task again.
        seed: of the run.
        settings: of the run.
        choices: keywords with which the model was built; None when the procedure composed it.
        packed: the packed file, or None when the scorecard says why not.
        test_correct: uint8 [test samples], 1 where the class is right; None for other metrics.
        history: learning curves, one entry for each call of `fit`: "fit", "epochs", and per epoch
            "loss", "valid" and "seconds", and "warnings" (`core.history.FitRecord`).
        notes: tables, lines and pictures of the procedure, by name (`core.notes`).
    """

    model: nn.Module = field(repr=False)
    scorecard: Scorecard | None
    spec: str
    provenance: dict[str, Any] = field(repr=False)
    task: str
    seed: int
    settings: Settings
    choices: dict[str, object] | None = None
    packed: Packed | None = field(default=None, repr=False)
    test_correct: np.ndarray[Any, Any] | None = field(default=None, repr=False)
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the row of this run: flat numbers, spec, task, seed, settings, provenance."""
        return {
            "result_schema": RESULT_SCHEMA,
            "task": self.task,
            "spec": self.spec,
            "seed": self.seed,
            "settings": self.settings.as_dict(),
            "choices": self.choices,
            "scorecard": None if self.scorecard is None else self.scorecard.as_dict(),
            "provenance": self.provenance,
            "history": self.history,
            "notes": self.notes,
        }

    def save(self, folder: str | Path) -> None:
        """Write the result: `model.safetensors`, `model.whit`, `result.json`; nothing is pickled.

        `result.json` is written last, so a folder that has one is complete. An earlier result in
        the folder stays whole when the disk is full.

        Raises:
            WhitError: the folder cannot be written.
        """
        folder = Path(folder)
        tensors = {name: _own_copy(t) for name, t in self.model.state_dict().items()}
        row = self.as_dict()
        row["shapes"] = {name: list(t.shape) for name, t in tensors.items()}
        text = json.dumps(row, indent=1)
        files: dict[Path, Writer] = {
            folder / "model.safetensors": lambda path: path.write_bytes(serialised(tensors))
        }
        if self.packed is not None:
            content = self.packed.to_bytes()
            files[folder / "model.whit"] = lambda path: path.write_bytes(content)
        if self.test_correct is not None:
            correct = self.test_correct
            files[folder / "test_correct.npy"] = lambda path: save_array(path, correct)
        files[folder / "result.json"] = lambda path: path.write_text(text)
        optional = (folder / "model.whit", folder / "test_correct.npy")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_together(files, obsolete=[path for path in optional if path not in files])
        except OSError as error:
            raise WhitError(
                f"The result could not be written to '{folder}' ({error.strerror or error}). Free "
                "some space, or choose a folder that can be written (--out); repeat the command, "
                "and it goes on from the last checkpoint."
            ) from None


def _own_copy(tensor: Tensor) -> Tensor:
    # Tied weights share memory, which the file format refuses; channels-last strides would be lost.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array as .npy whatever the path ends with; nothing is pickled."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
