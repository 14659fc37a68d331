import pytest
import torch
from torch.nn import functional

from whit.errors import SpecError
from whit.parts.losses import (
    attention_map,
    attention_transfer_loss,
    distillation_loss,
    ensemble_scores,
    group_imitation_loss,
    hint_loss,
    mutual_loss,
)


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


def members(seed, count=3):
    return torch.stack([scores(seed + k) for k in range(count)])


def test_the_mutual_term_is_the_mean_divergence_from_each_peer():
    z = members(20)
    p = z.softmax(-1)
    expected = 0.0
    for k in range(3):
        for j in range(3):
            if j != k:
                expected += float((p[j] * (p[j] / p[k]).log()).sum(-1).mean()) / 2 / 3
    assert float(mutual_loss(z)) == pytest.approx(expected, abs=1e-12)
    assert mutual_loss(z[:1].expand(4, -1, -1)).abs() < 1e-12


def test_a_members_mutual_gradient_is_its_distance_to_the_mean_of_its_peers():
    z = members(30).requires_grad_()
    mutual_loss(z).backward()
    p = z.detach().softmax(-1)
    for k in range(3):
        peers = (p.sum(0) - p[k]) / 2
        assert (z.grad[k] - (p[k] - peers) / len(p[k]) / 3).abs().max() < 1e-9


@pytest.mark.parametrize("given", [scores(1), scores(1)[None]])
def test_one_member_has_nobody_to_learn_from(given):
    with pytest.raises(SpecError, match="two members or more"):
        mutual_loss(given)


def test_an_ensemble_answers_with_the_mean_of_probabilities():
    z = members(40)
    mean = (z / 4.0).softmax(-1).mean(0)
    assert torch.allclose((ensemble_scores(z, 4.0) / 4.0).softmax(-1), mean)
    assert not torch.allclose((z.mean(0) / 4.0).softmax(-1), mean, atol=1e-3)


def test_the_imitation_gradient_reaches_the_imitator_alone():
    z = members(50, 4).requires_grad_()
    shares = torch.zeros(4, 4)
    shares[0, 2] = shares[0, 3] = 0.5
    shares[1:, 0] = 1.0
    group_imitation_loss(z, shares, 3.0).backward()
    p = (z.detach() / 3.0).softmax(-1)
    expected = 3.0 * (p - torch.stack([(p[2] + p[3]) / 2, p[0], p[0], p[0]])) / 6 / 4
    assert (z.grad - expected).abs().max() < 1e-9
    alone = z.detach().clone().requires_grad_()
    term = distillation_loss(alone[0], ensemble_scores(alone[2:], 3.0), 3.0)
    term.backward()
    assert alone.grad[1:].abs().max() == 0


def test_equal_members_have_nothing_to_imitate():
    z = scores(60).expand(3, -1, -1).clone().requires_grad_()
    loss = group_imitation_loss(z, (1 - torch.eye(3)) / 2)
    loss.backward()
    assert loss.abs() < 1e-12 and z.grad.abs().max() < 1e-12


def test_a_hint_is_half_the_mean_squared_difference():
    student, teacher = scores(70).requires_grad_(), scores(71).requires_grad_()
    loss = hint_loss(student, teacher)
    loss.backward()
    assert torch.allclose(student.grad, (student - teacher).detach() / student.numel())
    assert teacher.grad is None
    with pytest.raises(SpecError, match="1 x 1 convolution"):
        hint_loss(student, teacher[:, :3])


def features(seed, channels=3, size=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, size, size, generator=generator, dtype=torch.float64)


def test_an_attention_map_has_unit_length_and_knows_no_scale():
    a = features(0)
    found = attention_map(a)
    assert torch.allclose(found.norm(dim=1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(attention_map(-7 * a), found)
    expected = (a[0] ** 2).sum(0).flatten()
    assert torch.allclose(found[0], expected / expected.norm())
    with pytest.raises(SpecError, match="height, width"):
        attention_map(scores(1))


def test_equal_attention_costs_nothing_and_unequal_attention_is_the_mean_square():
    a, b = features(1), features(2, channels=5)
    assert attention_transfer_loss(a, 3 * a) < 1e-20
    expected = (attention_map(a) - attention_map(b)).square().mean()
    assert torch.allclose(attention_transfer_loss(a, b), expected)


def test_attention_of_another_size_is_averaged():
    small, large = features(3), features(3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert attention_transfer_loss(small, large) < 1e-20
    assert attention_transfer_loss(large, small) < 1e-20


def test_silent_features_give_finite_attention_and_gradient():
    silent = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(silent, features(4).float())
    loss.backward()
    assert loss.isfinite() and silent.grad.isfinite().all()
