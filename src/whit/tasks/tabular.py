"""Tables in CSV or TSV files: your own by path, thirteen public ones by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn import functional

from whit.core.data import Data
from whit.core.options import nearest
from whit.core.task import Task, accuracy, r_squared
from whit.errors import TaskError
from whit.parts.normalise import Normalise
from whit.tasks.encoded_table import KINDS, TableOptions, load_table
from whit.tasks.models import call_text, mlp4, width_builder
from whit.tasks.suitable_settings import suitable_settings


def tabular(  # noqa: PLR0913 - options of a task, by name
    *,
    path: str = "adult",
    target: str | None = None,
    kind: str = "auto",
    categorical: Sequence[str] = (),
    ignore: Sequence[str] = (),
    width: float = 1.0,
) -> Task:
    """Learn a column of a table from the others; 60 % of the rows train, 20 % valid, 20 % test.

    Texts and the columns named in `categorical` become one input of 0 or 1 for each category;
    missing values (empty, NA, N/A, NaN, ?) become the training median and an input that says so, or
    a category of their own. All of this is fitted on the training rows. The model, and its packed
    file, takes the vector that results; `data.feature_names` names its entries, and
    `whit.tasks.encoded_table.load_table(...)` makes it from new rows.

    Args:
        path: a CSV or TSV file with a header line, packed by gzip or not, or one of adult, churn,
            coil2000, connect-4, fars, krkopt, magic, mfeat-factors, phoneme, shuttle, sleep,
            spambase, waveform-40.
        target: column to learn; the column `target` by default, or the last one if there is none.
        kind: "classification", "regression" (the model learns the target less its training mean,
            divided by its standard deviation), or "auto": a regression if the target holds numbers
            with a fraction or more than 20 different ones, else classes.
        categorical: columns of numbers that are codes.
        ignore: columns to leave out, such as the number of a row.
        width: multiplies the hidden sizes of the control model `mlp4`, > 0.
    """
    codes, left_out = _names("categorical", categorical), _names("ignore", ignore)
    if kind not in KINDS:
        raise TaskError(f"The kind was given as {kind!r}. {nearest(str(kind), KINDS)}")
    for option, value in (("path", path), ("target", target)):
        if not isinstance(value, str) and (option == "path" or value is not None):
            raise TaskError(f"The option '{option}' was given as {value!r}; expected a text.")
    options = TableOptions(target, kind, codes, left_out)
    # Read now: whether classes or numbers are learnt decides the loss and the metric.
    table = load_table(path, options)
    classes = bool(table.data.class_names)
    return Task(
        name=call_text(
            tabular,
            path=path,
            target=target,
            kind=kind,
            categorical=codes,
            ignore=left_out,
            width=width,
        ),
        load=lambda: load_table(path, options).data,
        build=width_builder(table_model, width),
        loss=functional.cross_entropy if classes else functional.mse_loss,
        metric=accuracy if classes else r_squared,
        settings=suitable_settings(len(table.data.train)),
    )


def table_model(data: Data, width: float = 1.0) -> nn.Module:
    """Build `mlp4`, with inputs of 0 and 1 left as they are.

    Divided by its standard deviation, a rare category would be an input of 10 or 100 and learnt by
    heart: on churn that costs about a point of validation accuracy.

    Shapes: [batch, features] -> [batch, data.output_size].

    Args:
        data: gives the features, the normalisation and the output size.
        width: multiplies the hidden sizes, > 0.
    """
    inputs = data.train.inputs[0]
    binary = ((inputs == 0) | (inputs == 1)).all(0)
    fitted = Normalise.fitted(inputs)
    model = mlp4(data, width)
    model.normalise = Normalise(fitted.shift.where(~binary, 0.0), fitted.scale.where(~binary, 1.0))
    return model


def _names(option: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, (list, tuple)):
        raise TaskError(
            f"The option '{option}' was given as {names!r}; expected a list of column names, such "
            "as ['colour']."
        )
    return tuple(str(name) for name in names)
