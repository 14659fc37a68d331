"""What a layer reads for single outputs: rows of its input, drawn from many samples and places.

A neuron of a convolution sees one patch for each place; where a pool follows, an output stands for
a window of places, whose sums it takes the maximum of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from whit.errors import NotApplicable
from whit.parts.binary_layers import padding_sides
from whit.parts.firing_blocks import blocks

# Places of one image that are drawn at most: neighbours tell little more.
PLACES = 8
LARGEST_INPUT = 127
Pool = nn.MaxPool1d | nn.MaxPool2d


@dataclass(frozen=True, eq=False)
class Places:
    """Outputs of a layer that were drawn.

    Attributes:
        windows: int64 [draws, window]; the places in the layer's own output that each output takes
            the maximum of, flat over its spatial axes.
        outputs: int64 [draws]; the places in the pooled output, flat.
    """

    windows: Tensor
    outputs: Tensor


def draw_places(
    sizes: tuple[int, ...], pool: Pool | None, count: int, generator: torch.Generator
) -> Places:
    """Draw places of a layer's output, each at most once.

    Args:
        sizes: spatial sizes of the layer's output; () for a linear layer.
        pool: `MaxPool1d` or `MaxPool2d` behind the layer, or None.
        count: how many, >= 1.
        generator: of the random numbers.
    """
    rows, columns = (*(1,) * (2 - len(sizes)), *sizes)
    numbers = torch.arange(rows * columns)
    windows = numbers[:, None]
    if pool is not None:
        size, stride = _pair(pool.kernel_size), _pair(pool.stride)
        if len(sizes) == 1:
            size, stride = (1, size[1]), (1, stride[1])
        # float64 holds all place numbers exactly; unfold takes no integers.
        grid = numbers.double().reshape(1, 1, rows, columns)
        windows = functional.unfold(grid, size, stride=stride)[0].T.long()
    chosen = torch.randperm(len(windows), generator=generator)[:count].sort().values
    return Places(windows[chosen], chosen)


def patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what each output place of a layer reads.

    Shapes: inputs [batch, features] -> [batch, features, 1]; convolutions: [batch, channels, ...]
    -> [batch, channels * kernel, places].
    """
    if isinstance(layer, nn.Linear):
        if inputs.dim() != 2:
            raise NotApplicable(
                f"A linear layer is called with inputs {list(inputs.shape)}; a ternary network "
                "takes [batch, features] there. Put an nn.Flatten before it."
            )
        return inputs[:, :, None]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    sides = padding_sides(layer)
    padded = functional.pad(inputs, sides) if any(sides) else inputs
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if isinstance(layer, nn.Conv1d):
        padded = padded[:, :, None]
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    return functional.unfold(padded, kernel, dilation=dilation, stride=stride)


def output_sizes(layer: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """Return the spatial sizes of a layer's output for one sample of these inputs."""
    if isinstance(layer, nn.Linear):
        return ()
    with torch.no_grad():
        return tuple(layer(inputs[:1]).shape[2:])


def whole_numbers(inputs: Tensor, path: str) -> NDArray[np.int16]:
    """Return inputs of a ternary layer as integers.

    Raises:
        NotApplicable: they are no small whole numbers, or not finite.
    """
    if not bool(inputs.isfinite().all()):
        raise NotApplicable(
            f"Layer '{path}' reads NaN or infinite numbers; look for them in the inputs, or in the "
            "weights of a training that diverged."
        )
    rounded = inputs.round()
    if not torch.equal(rounded, inputs) or float(rounded.abs().max()) > LARGEST_INPUT:
        raise NotApplicable(
            f"Layer '{path}' reads numbers that are no whole numbers from -{LARGEST_INPUT} to "
            f"{LARGEST_INPUT}, so its sums are no integers. Quantise the input: input='ternary', "
            "'binary' or 'integer'."
        )
    return rounded.to(torch.int16).cpu().numpy()


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen of one hidden block.

    Attributes:
        inputs: int16 [columns of the weight, draws * window].
        rates: of the reference's firing, float64 [draws, channels].
        window: places that one output takes the maximum of, >= 1.
    """

    inputs: NDArray[np.int16]
    rates: NDArray[np.float64]
    window: int


def observe(
    source: nn.Module,
    reference: nn.Module,
    number: int,
    batches: Sequence[Tensor],
    draws: int,
    generator: torch.Generator,
) -> Observed:
    """Run source and reference over samples and draw what a block reads, and what it should fire.

    Args:
        source: gives the inputs; its blocks before this one are ternary.
        reference: gives the firing rates, from its own inputs; may be `source`.
        number: of the block.
        batches: inputs of the network.
        draws: outputs to draw, >= 1; over all samples and places.
        generator: of the random numbers.
    """
    block, model_block = blocks(source)[number], blocks(reference)[number]
    fire = model_block.firing
    assert fire is not None
    total = sum(len(batch) for batch in batches)
    inputs, rates, window = [], [], 1
    for batch in batches:
        seen = _inputs_of(source, block.matrix.module, batch)
        fired = _inputs_of(reference, fire, batch)
        whole = whole_numbers(seen, block.matrix.path)
        pool = next(iter(block.pools), None)
        each = min(PLACES, max(1, -(-draws // total)))
        places = draw_places(output_sizes(block.layer, seen), pool, each, generator)
        read = patches(block.layer, torch.from_numpy(whole.astype(np.float32)))
        window = places.windows.shape[1]
        chosen = read[:, :, places.windows]  # [batch, columns, draws, window]
        inputs.append(chosen.permute(1, 0, 2, 3).flatten(1).to(torch.int16).numpy())
        rho = fire.firing_rate(fired)
        rho = rho.reshape(*rho.shape[:2], -1)  # linear layers have one place
        rates.append(rho[:, :, places.outputs].permute(0, 2, 1).flatten(0, 1).cpu().double())
    return Observed(np.concatenate(inputs, 1), torch.cat(rates).numpy(), window)


def _inputs_of(model: nn.Module, module: nn.Module, batch: Tensor) -> Tensor:
    """Return what a module of the model reads, in evaluation mode."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        with torch.no_grad():
            model.eval()(batch)
    finally:
        handle.remove()
    return seen[0]


def inputs_of_last(model: nn.Module, batches: Iterable[Tensor]) -> NDArray[np.int16]:
    """Return what the last block reads, int16 [columns, samples]."""
    last = blocks(model)[-1]
    whole = [  # batch by batch: as floats all samples would take twice the memory
        whole_numbers(_inputs_of(model, last.matrix.module, batch), last.matrix.path)
        for batch in batches
    ]
    return np.ascontiguousarray(np.concatenate(whole).T)
