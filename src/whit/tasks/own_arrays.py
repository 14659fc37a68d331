"""A task from a model class and arrays, for those who would rather not write `load` and `build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn import functional

import whit.core.task as core_task
from whit.core.data import Augment
from whit.core.settings import Settings
from whit.core.task import Loss, Metric, accuracy, r_squared
from whit.tasks.array_data import Pair, array_data
from whit.tasks.model_factory import ModelFactory, factory_name, model_builder, rehearse
from whit.tasks.suitable_settings import careful_settings


# `-> Task` alone would list this among the built-in tasks, which have options only.
def array_task(  # noqa: PLR0913 - a public call: all but three by name
    model: ModelFactory,
    inputs: Any,
    target: Any,
    *,
    valid: Pair | None = None,
    test: Pair | None = None,
    class_names: Sequence[str] = (),
    settings: Settings | None = None,
    name: str | None = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    augment: Augment | None = None,
) -> core_task.Task:
    """Return a task from a model factory and arrays, checked and tried on a few samples.

    Inputs of 2 axes are vectors, of 4 images [samples, channels, height, width], of others
    sequences. They reach the model as float32; int64 stays as it is and is meant for indices.
    Whole numbers, True and False, and texts are classes, floats are values to predict: a float
    target [samples] becomes [samples, 1], and the model should return this shape.
    What is not given of `valid` and `test` is split off, 20 % of the samples each, with the shares
    of the classes kept; the split is the same each time.

    Shapes: inputs [samples, ...], target [samples] or [samples, values].

    Args:
        model: a class of torch.nn.Module, or a function that returns a new model. It is called with
            the data if its first argument is named `data`, else with nothing. Its arguments with
            defaults, such as `width=1.0`, are what a technique may vary.
        inputs: NumPy array or tensor of float, uint8, another small integer type, or int64.
        target: class numbers from 0, True and False, texts, or floats.
        valid: pair (inputs, target) to choose by.
        test: pair (inputs, target) to report.
        class_names: names in label order; numbers or the sorted texts by default.
        settings: of the training; by default those that suit the number of samples.
        name: of the task in results; the model's by default. In a file that is named as
            `my_file.py:task` that reference replaces it.
        loss: `(output, target) -> scalar`; cross-entropy for classes, squared error for floats.
        metric: `(output, target) -> float`, higher is better; accuracy, or R squared for floats.
        augment: batched code `(inputs, generator) -> inputs` for the training batches.

    Raises:
        TaskError: the model is an instance, needs other arguments, or does not fit the arrays.
        DataError: the arrays cannot be used as they are; the message says why.
    """
    build = model_builder(model)
    data = array_data(
        inputs,
        target,
        valid=valid,
        test=test,
        class_names=class_names,
        own_loss=loss is not None,
        augment=augment,
    )
    classes = bool(data.class_names)
    made = core_task.Task(
        name=name or factory_name(model),
        load=lambda: data,
        build=build,
        loss=loss or (functional.cross_entropy if classes else functional.mse_loss),
        metric=metric or (accuracy if classes else r_squared),
        settings=settings or careful_settings(len(data.train)),
        output_axes=1 if classes else data.train.target.dim() - 1,
    )
    made.checked_data()
    rehearse(made, data)
    return made
