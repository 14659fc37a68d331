import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.task import Task, accuracy, r_squared
from whit.errors import TaskError
from whit.tasks.toys import tagging_loss


def task(**options):
    def build(data, width=1.0, depth=2):
        return nn.Linear(2, 2)

    return Task("small", lambda: None, options.pop("build", build), **options)


def test_accuracy_by_hand():
    output = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
    assert accuracy(output, torch.tensor([1, 0, 0, 0])) == 0.75
    assert accuracy(output.reshape(2, 2, 2), torch.tensor([[1, 0], [0, 0]])) == 0.75


def test_r_squared_by_hand():
    target = torch.tensor([[1.0], [2.0], [3.0]])
    assert r_squared(target, target) == 1
    assert r_squared(torch.full((3, 1), 2.0), target) == 0
    assert r_squared(torch.tensor([[1.0], [2.0], [2.0]]), target) == pytest.approx(0.5)


def test_metric_names():
    assert task().metric_name == "accuracy" and task(metric=r_squared).metric_name == "r_squared"


def test_unknown_choices_name_the_nearest():
    assert isinstance(task().build_model(None, {"width": 0.5}), nn.Linear)
    with pytest.raises(TaskError, match="'widht=2'.*'width'"):
        task().build_model(None, {"widht": 2})
    loose = task(build=lambda data, **choices: nn.Linear(choices["size"], 1))
    assert loose.build_model(None, {"size": 3}).in_features == 3


def test_what_is_built_must_be_a_module():
    with pytest.raises(TaskError, match="returned int"):
        task(build=lambda data: 3).build_model(None, {})


def test_leading_axes_are_averaged_in_the_loss():
    output = torch.randn(2, 3, 5, 4)
    target = torch.randint(0, 4, (5,))
    each = [functional.cross_entropy(output[i, j], target) for i in range(2) for j in range(3)]
    assert torch.allclose(task().mean_loss(output, target), torch.stack(each).mean())
    assert torch.equal(
        task().mean_loss(output[0, 0], target), functional.cross_entropy(output[0, 0], target)
    )


def test_members_with_their_own_targets():
    output, target = torch.randn(3, 5, 4), torch.randint(0, 4, (3, 5))
    each = [functional.cross_entropy(o, t) for o, t in zip(output, target, strict=True)]
    found = task().mean_loss(output, target, own_targets=True)
    assert torch.allclose(found, torch.stack(each).mean())


def test_more_output_axes():
    tags = task(loss=tagging_loss, output_axes=2)
    output, target = torch.randn(2, 5, 7, 3), torch.randint(0, 3, (5, 7))
    each = [tagging_loss(o, target) for o in output]
    assert torch.allclose(tags.mean_loss(output, target), torch.stack(each).mean())
    frames = task(loss=functional.mse_loss, output_axes=3)
    output, target = torch.randn(2, 4, 1, 8, 8), torch.randn(4, 1, 8, 8)
    assert torch.allclose(
        frames.mean_loss(output, target), functional.mse_loss(output, target.expand(2, 4, 1, 8, 8))
    )


def test_members_vote_by_their_probabilities():
    output = torch.randn(3, 5, 4)
    combined = task().combined_output(output)
    assert torch.allclose(combined.exp(), output.softmax(-1).mean(0), atol=1e-6)
    single = torch.randn(5, 4)
    assert task().combined_output(single) is single
    regression = task(loss=functional.mse_loss)
    assert torch.allclose(regression.combined_output(output), output.mean(0))


def test_wrong_outputs_are_described():
    tags = task(output_axes=2)
    tags.check_output(torch.zeros(8, 3, 2), 8)
    tags.check_output(torch.zeros(5, 8, 3, 2), 8)
    with pytest.raises(TaskError, match=r"shape \[8, 3\], expected \[..., batch=8, _, _\]"):
        tags.check_output(torch.zeros(8, 3), 8)
    with pytest.raises(TaskError, match="output_axes"):
        task().check_output(torch.zeros(3, 8), 8)
    with pytest.raises(TaskError, match="returned tuple"):
        task().check_output((torch.zeros(8, 2),), 8)


def test_another_number_of_scores_than_classes_is_refused():
    task().check_output(torch.zeros(8, 3), 8, classes=3)
    task().check_output(torch.zeros(2, 8, 3), 8, classes=3)
    task().check_output(torch.zeros(8, 5), 8)
    with pytest.raises(TaskError, match=r"gives 5 scores \(shape \[8, 5\]\), .* 3 class names"):
        task().check_output(torch.zeros(8, 5), 8, classes=3)
    tags = task(loss=tagging_loss, output_axes=2)
    with pytest.raises(TaskError, match="gives 4 scores"):
        tags.check_output(torch.zeros(8, 6, 4), 8, classes=3)


def test_scores_are_not_counted_where_no_class_scores_are_read():
    one_logit = task(loss=functional.binary_cross_entropy_with_logits, metric=r_squared)
    one_logit.check_output(torch.zeros(8, 1), 8, classes=2)
