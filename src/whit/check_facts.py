"""Facts that `check` tells: of the control model, of the data, and of a packed estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from whit.activation_calls import ActivationCall, watched_forward
from whit.core.data import Data
from whit.core.device import Device
from whit.core.execution import Trained
from whit.core.prediction import predict
from whit.core.task import Task
from whit.errors import CannotPack
from whit.measure.cost import cost_of
from whit.measure.provenance import made_by
from whit.measure.scorecard import count_parameters
from whit.model_layers import Layers, layers_of
from whit.packing.packer import Packed, PackedLayer, float_inputs, pack
from whit.rehearsal import SEED

FLOAT_BYTES = 4


@dataclass(frozen=True)
class ModelFacts:
    """The control model as it was built.

    Attributes:
        params: numbers in weights and biases.
        float32_bytes: that they take as float32.
        input_shapes: of one sample, each input.
        output_shape: of one sample, members or exits combined; it fits the task.
        kinds: modules without children by class, with their counts.
        macs: multiply-accumulates of one inference, as torch counts them.
        calls: of activation functions in forward, which are no modules.
        shared: sentences on modules or weights that are used under several names.
    """

    params: int
    float32_bytes: int
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    kinds: dict[str, int]
    macs: int
    calls: tuple[ActivationCall, ...]
    shared: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, task: Task, data: Data) -> ModelFacts:
        """Look at a model and run it on some data.

        Args:
            model: as the task builds it; in training mode or not.
            task: whose output axes it must have.
            data: few samples; only training and validation are used.

        Raises:
            TaskError: the output does not fit the task.
        """
        device = Device.from_environment().torch
        output = predict(model.to(device), data.valid, task, device)
        task.check_output(output, len(data.valid), len(data.class_names))
        example = data.train.batch(torch.arange(min(2, len(data.train))))
        macs, calls = watched_forward(model.cpu(), example.inputs)
        layers = layers_of(model)
        params, _ = count_parameters(model)
        leaves = (layer.kind for layer in layers.values() if not layer.children)
        return cls(
            params,
            FLOAT_BYTES * params,
            tuple(tuple(tensor.shape[1:]) for tensor in data.train.inputs),
            tuple(output.shape[1:]),
            dict(Counter(leaves)),
            macs // len(example.target),
            calls,
            tuple(_shared(layers)),
        )


def _shared(layers: Layers) -> Iterator[str]:
    for path, layer in layers.items():
        parent = path.rpartition(".")[0]
        inside = parent in layers and layers[parent].same_as is not None
        if layer.same_as is not None and not inside:
            yield f"'{layer.same_as}' and '{path}' are one module ({layer.kind})"
        if layer.tied_to is not None:
            yield f"'{path}' and '{layer.tied_to}' share their weight"


@dataclass(frozen=True)
class DataFacts:
    """The data of the task.

    Attributes:
        samples: by split; the values of the test split are not looked at.
        input_types: dtype of each input.
        class_names: in label order, empty for other targets.
        input_range: lowest and highest raw value, if known.
    """

    samples: dict[str, int]
    input_types: tuple[str, ...]
    class_names: tuple[str, ...]
    input_range: tuple[float, float] | None

    @classmethod
    def of(cls, data: Data, test_samples: int) -> DataFacts:
        """Describe data whose test split may be sealed.

        Args:
            data: of a task.
            test_samples: length of its test split.
        """
        samples = {"train": len(data.train), "valid": len(data.valid), "test": test_samples}
        types = (str(tensor.dtype).removeprefix("torch.") for tensor in data.train.inputs)
        return cls(samples, tuple(types), data.class_names, data.input_range)


@dataclass(frozen=True)
class PackedEstimate:
    """What the packed file of a rehearsed model holds.

    Attributes:
        stored_bytes: of the whole file.
        weight_bytes: of all constants in it.
        operators: kinds with their counts, in the order of the program.
        layers: one entry per weight: format, bits, bytes.
        macs_by_width: multiply-accumulates of one inference, such as {"w1a1": 33280}.
        bits: stored bits of one weight, mean over all layers.
    """

    stored_bytes: int
    weight_bytes: int
    operators: dict[str, int]
    layers: tuple[PackedLayer, ...]
    macs_by_width: dict[str, int]
    bits: float

    @classmethod
    def of(cls, packed: Packed) -> PackedEstimate:
        """Read a packed network."""
        program = packed.program
        cost = cost_of(program.operators, program.activation_peak_bytes)
        weights = sum(layer.weights for layer in packed.layers)
        stored = sum(layer.after_bytes for layer in packed.layers)
        return cls(
            packed.nbytes,
            packed.weight_bytes,
            dict(Counter(operator.kind for operator in program.operators)),
            packed.layers,
            cost.macs_by_width,
            8 * stored / max(1, weights),
        )


def estimated(trained: Trained, task: str, brief: str) -> tuple[PackedEstimate | None, str]:
    """Pack a rehearsed model as `measure` packs a trained one.

    Args:
        trained: the finished model with its run.
        task: its name, kept in the file.
        brief: spec of the technique, likewise.

    Returns:
        The estimate, or None and the packer's reason.
    """
    data, model = trained.run.data, trained.model
    try:
        with float_inputs(model):
            packed = pack(
                model,
                *data.valid.raw_example(64),
                labels=list(data.class_names) or None,
                info={"task": task, "spec": brief, "seed": str(SEED), "made_by": made_by()},
                input_range=data.input_range,
            )
    except CannotPack as error:
        return None, str(error)
    return PackedEstimate.of(packed), ""
