import pytest
import torch
from torch.nn import functional

from whit.parts.losses import distillation_loss


def scores(seed, batch=6, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)


def gradient(student, teacher, temperature):
    student = student.clone().requires_grad_()
    distillation_loss(student, teacher, temperature).backward()
    return student.grad


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_gradient_is_t_times_the_difference_of_probabilities(temperature):
    student, teacher = scores(0), scores(1)
    expected = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    expected = temperature * expected / len(student)
    assert (gradient(student, teacher, temperature) - expected).abs().max() < 1e-9


def test_equal_scores_cost_nothing_and_pull_nowhere():
    z = scores(2)
    assert distillation_loss(z, z).abs() < 1e-12
    assert gradient(z, z, 4.0).abs().max() < 1e-12


def test_a_constant_added_to_a_row_changes_nothing():
    student, teacher = scores(3), scores(4)
    shift = torch.randn(6, 1, dtype=torch.float64) * 10
    before = distillation_loss(student, teacher)
    assert torch.allclose(distillation_loss(student + shift, teacher), before, atol=1e-10)
    assert torch.allclose(distillation_loss(student, teacher - shift), before, atol=1e-10)


def test_it_is_the_divergence_from_teacher_to_student():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p, q = teacher.softmax(1), student.softmax(1)
    forward = (p * (p / q).log()).sum()
    backward = (q * (q / p).log()).sum()
    assert abs(forward - backward) > 0.05, "the example tells the two orders apart"
    assert distillation_loss(student, teacher, 1.0) == pytest.approx(float(forward), abs=1e-6)


def test_it_is_never_negative():
    assert all(distillation_loss(scores(i), scores(i + 50)) > 0 for i in range(20))


def test_high_temperature_tends_to_matching_centred_scores():
    student, teacher = scores(5), scores(6)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    expected = centred / student.numel()
    found = gradient(student, teacher, 1e3)
    assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_the_teacher_gets_no_gradient():
    teacher = scores(7).requires_grad_()
    distillation_loss(scores(8).requires_grad_(), teacher).backward()
    assert teacher.grad is None


def test_leading_axes_are_averaged():
    student = torch.stack([scores(9), scores(10)])
    teacher = torch.stack([scores(11), scores(12)])
    apart = [distillation_loss(s, t) for s, t in zip(student, teacher, strict=True)]
    assert torch.allclose(distillation_loss(student, teacher), torch.stack(apart).mean())


def test_it_differs_from_soft_cross_entropy_by_the_teachers_entropy():
    student, teacher = scores(13), scores(14)
    soft = functional.cross_entropy(student, teacher.softmax(1))
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    assert torch.allclose(distillation_loss(student, teacher, 1.0), soft - entropy)
