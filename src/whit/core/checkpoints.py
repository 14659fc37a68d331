"""Checkpoints of a training run: written whole or not at all, read without running code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whit.atomic_files import write_atomically
from whit.errors import SettingsError, SpecError, WhitError


def checkpoint_path(folder: Path, number: int) -> Path:
    """Return the file of the call of `fit` with this number."""
    return folder / f"checkpoint-{number}.pt"


def remove_checkpoints(folder: Path) -> None:
    """Remove what a finished run no longer needs."""
    for path in folder.glob("checkpoint-*.pt"):
        path.unlink(missing_ok=True)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the file appears whole or not at all.

    Raises:
        WhitError: the file cannot be written; the one of the epoch before stays.
    """
    # In memory first: torch's own file writer hides why a file cannot be written.
    content = io.BytesIO()
    torch.save(state, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda partial: partial.write_bytes(content.getbuffer()))
    except OSError as error:
        kept = " from the epoch before" if path.exists() else "; this training begins again"
        raise WhitError(
            f"The checkpoint '{path}' could not be written ({error.strerror or error}). Free some "
            f"space, or give another folder with --out; repeat the command, and it goes on{kept}."
        ) from None


def require_readable(path: Path) -> None:
    """Read a checkpoint at once: one that cannot be read would be ignored for ever.

    Raises:
        SpecError: it holds something that would run code; the file is removed.
    """
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError as error:
        path.unlink()
        raise SpecError(
            "A hook's state_dict holds something else than tensors, numbers, texts, lists and "
            f"dictionaries, so that the run could not go on after a kill: {str(error)[:200]}"
        ) from None


def read_checkpoint(
    path: Path | None, identity: str, device: torch.device
) -> tuple[dict[str, Any] | None, str]:
    """Return the state of the same run, or None; and a sentence when a file had to be ignored.

    Args:
        path: of the checkpoint; None and a missing file are no checkpoint.
        identity: of the run; a checkpoint of another one is not read.
        device: where the tensors go.
    """
    if path is None or not path.exists():
        return None, ""
    try:
        state = torch.load(path, weights_only=True, map_location=device)
    except MemoryError:
        raise
    except Exception as error:  # a torn file raises nearly anything
        return None, (
            f"The checkpoint '{path}' is damaged ({type(error).__name__}) and was ignored: this "
            "call of fit began again."
        )
    if not isinstance(state, dict) or state.get("identity") != identity:
        return None, ""
    return state, ""


def model_state(model: nn.Module) -> dict[str, Any]:
    """Return all of a model that training may change.

    Besides the state dict: buffers that it leaves out, and which parameters are frozen.
    """
    state = model.state_dict()
    hidden = {name: b for name, b in model.named_buffers() if name not in state}
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    return {"state": state, "hidden": hidden, "frozen": frozen}


def load_model_state(model: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Put a model back to `model_state`.

    Raises:
        SettingsError: the state does not fit the model.
    """
    try:
        model.load_state_dict(saved["state"])
        for name, buffer in saved["hidden"].items():
            _put_buffer(model, name, buffer)
    except (RuntimeError, AttributeError) as error:
        raise SettingsError(
            f"The checkpoint '{path}' does not fit the model ({str(error)[:200]}). Something "
            "that the run's identity does not see has changed: remove the folder."
        ) from None
    frozen = set(saved["frozen"])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad == (name in frozen):
            parameter.requires_grad_(name not in frozen)


def _put_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    """Set a buffer in place where its shape allows it: others may hold the same tensor."""
    prefix, _, key = name.rpartition(".")
    module = model.get_submodule(prefix)
    current = module._buffers.get(key)
    if current is not None and current.shape == value.shape:
        current.copy_(value)
    else:
        module._buffers[key] = value


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of torch's global generators: the CPU's, and that of a GPU in use."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_states(states: list[Tensor], device: torch.device) -> None:
    """Put torch's global generators back to `random_states`."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)
