import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from whit.errors import NotApplicable, SpecError
from whit.packing import pack
from whit.parts.instance_thresholds import (
    STATISTICS,
    InstancePReLU,
    InstanceTerm,
    InstanceThreshold,
    instance_statistics,
)
from whit.parts.straight_through import Sign, binary_sign, straight_through_sign

sys.path.insert(0, str(Path(__file__).parent))
from every_backend import check_bits, everywhere, kinds  # noqa: E402


def maps(count=6, channels=3, size=(4, 5), seed=0):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def filled(module, seed=0):
    """Give every parameter a value that is not its first."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module


def test_statistics_are_the_plain_means_and_the_moment_identity_holds():
    x = maps().double()
    flat = x.flatten(2)
    mean, variance = flat.mean(2), flat.var(2, correction=0)
    (cubic,) = instance_statistics(x)
    assert torch.allclose(cubic.flatten(1), (flat**3).mean(2), atol=1e-12)
    found_mean, found_variance = instance_statistics(x, "mean_variance")
    assert torch.allclose(found_mean.flatten(1), mean)
    assert torch.allclose(found_variance.flatten(1), variance)
    skewness = (((flat - mean[..., None]) / variance.sqrt()[..., None]) ** 3).mean(2)
    identity = mean**3 + 3 * mean * variance + skewness * variance**1.5
    assert torch.allclose(cubic.flatten(1), identity, atol=1e-5)


def test_far_values_are_limited_in_the_cubic_moment_only():
    x = torch.zeros(1, 1, 2, 2)
    x[0, 0, 0, 0] = 100.0
    assert float(instance_statistics(x, "cubic")[0]) == 6.0**3 / 4
    assert float(instance_statistics(x, "mean")[0]) == 25.0


def test_the_gradient_of_the_cubic_moment_is_three_x_squared_over_the_map():
    x = maps().requires_grad_()
    (cubic,) = instance_statistics(x)
    cubic.sum().backward()
    assert torch.allclose(x.grad, 3 * x.detach() ** 2 / 20, atol=1e-6)


def test_half_precision_is_computed_in_float32():
    x = (maps() * 6).half()
    (cubic,) = instance_statistics(x)
    assert cubic.dtype == torch.float32
    assert torch.allclose(cubic, instance_statistics(x.float())[0])
    assert InstanceThreshold(3)(x).dtype == torch.float16


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("gradient", ["ste", "approxsign"])
def test_it_starts_as_the_static_threshold_and_keeps_its_gradients(plus, gradient):
    module = InstanceThreshold(3, plus=plus, window=0.8, gradient=gradient)
    with torch.no_grad():
        module.term.offset.copy_(torch.tensor([0.3, -0.2, 0.0]))
    x, y = maps().requires_grad_(), maps().requires_grad_()
    incoming = maps(seed=1)
    offset = module.term.offset.detach().clone().requires_grad_()
    static = straight_through_sign(y - offset.reshape(1, 3, 1, 1), 0.8, gradient)
    assert torch.equal(module(x), static)
    (module(x) * incoming).sum().backward()
    (static * incoming).sum().backward()
    assert torch.equal(x.grad, y.grad)
    assert torch.allclose(module.term.offset.grad, offset.grad, atol=1e-5)
    assert bool(module.term.slope.grad.any()), "the statistics' weight can leave 0"
    if plus:
        assert bool(module.term.expand.weight.grad.any())


def test_the_formula_with_all_terms():
    module = filled(InstanceThreshold(3, plus=True))
    x = maps()
    q = (x.clamp(-6, 6) ** 3).flatten(2).mean(2)
    term = module.term
    hidden = (q @ term.squeeze.weight.T).clamp_min(0)
    threshold = term.slope[0] * q + term.offset + hidden @ term.expand.weight.T
    assert term.squeeze.out_features == 8
    far = (x - threshold[..., None, None]).abs() > 1e-5
    expected = binary_sign(x - threshold[..., None, None])
    assert torch.equal(module(x)[far], expected[far]) and float(far.float().mean()) > 0.99


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_sample_does_not_depend_on_the_others(statistic):
    module = filled(InstanceThreshold(3, statistic, plus=True))
    x = maps()
    for mode in (True, False):
        module.train(mode)
        whole = module(x)
        other = torch.cat([x[:1], maps(5, seed=9) * 7])
        assert torch.equal(module(other)[:1], whole[:1])
        assert torch.equal(torch.cat([module(one) for one in x.split(1)]), whole)


def test_a_shift_of_one_sample_does_not_move_its_signs():
    module = InstanceThreshold(3, "mean")
    nn.init.ones_(module.term.slope)
    x = torch.randint(-64, 65, (5, 3, 4, 4)) / 8
    shifted = x.clone()
    shifted[2] += 3.0
    assert torch.equal(module(shifted), module(x))


def test_detached_statistics_get_no_gradient():
    free, held = filled(InstanceThreshold(3)), filled(InstanceThreshold(3, detach=True))
    x, y = maps().requires_grad_(), maps().requires_grad_()
    incoming = maps(seed=1)
    assert torch.equal(free(x), held(y))
    (free(x) * incoming).sum().backward()
    (held(y) * incoming).sum().backward()
    inside = ((y - held.term(y)).abs() <= 1).float()
    assert torch.allclose(y.grad, incoming * inside)
    q_part = -(held.term.slope[0][None, :] * (incoming * inside).sum((2, 3)))[..., None, None]
    assert torch.allclose(x.grad, y.grad + q_part * 3 * x.detach() ** 2 / 20, atol=1e-5)


def test_a_map_of_one_line_works_and_vectors_and_points_are_refused():
    module = filled(InstanceThreshold(3))
    assert module(torch.randn(2, 3, 9)).shape == (2, 3, 9)
    with pytest.raises(NotApplicable, match="vectors have no map"):
        module(torch.randn(4, 3))
    with pytest.raises(NotApplicable, match="its own mean"):
        module(torch.randn(4, 3, 1, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"statistic": "median"}, "cubic"),
        ({"reduction": 0}, "reduction"),
        ({"window": 0}, "window"),
    ],
    ids=str,
)
def test_bad_options(options, words):
    with pytest.raises(SpecError, match=words):
        InstanceThreshold(3, **options)


def test_the_shifted_prelu_by_its_formula():
    module = InstancePReLU(3)
    x = maps()
    assert torch.allclose(module(x), torch.where(x > 0, x, x / 4))
    filled(module)
    mean = x.flatten(2).mean(2)
    g, z = (
        (term.slope[0] * mean + term.offset)[..., None, None]
        for term in (module.before, module.after)
    )
    inner = x - g
    expected = torch.where(inner > 0, inner, inner * module.slope[None, :, None, None]) + z
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_vmap_gives_what_a_loop_gives():
    modules = [filled(InstanceThreshold(3, plus=True), seed) for seed in range(2)]
    x = maps()
    names = dict(modules[0].named_parameters())
    stacked = {n: torch.stack([dict(m.named_parameters())[n] for m in modules]) for n in names}

    def call(parameters):
        return torch.func.functional_call(modules[0], parameters, (x,))

    batched = torch.func.vmap(call)(stacked)
    for one, module in zip(batched, modules, strict=True):
        assert float((one != module(x)).float().mean()) < 0.01


def dyadic(module, seed):
    """Fill with multiples of 1/4, so that sums over 4 x 4 maps of eighths are exact."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape, generator=generator) / 4)
    return module


class Together(nn.Module):
    """Every statistic with and without `plus`, side by side, which saves compiler runs."""

    def __init__(self, seed):
        super().__init__()
        self.parts = nn.ModuleList(
            dyadic(InstanceThreshold(3, statistic, plus), seed)
            for statistic in STATISTICS
            for plus in (False, True)
        )

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], 1)


def test_instance_thresholds_pack_as_operators_that_agree_bit_for_bit(tmp_path):
    x = torch.randint(-16, 17, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 8
    packed = check_bits(Together(0), x, tmp_path)
    known = {"clamp", "multiply", "reduce", "affine", "add", "flatten", "linear", "relu", "reshape"}
    assert set(kinds(packed)) <= known | {"sign", "concat"}


@pytest.mark.parametrize("seed", range(3))
def test_random_maps_agree_but_for_rounding(seed, tmp_path):
    module = filled(InstanceThreshold(3, STATISTICS[seed], plus=True), seed)
    _, expected, found = everywhere(module, maps(50, seed=seed), tmp_path)
    for backend, output in found.items():
        assert (output != expected).mean() < 1e-3, backend


class Network(nn.Module):
    """A binary convolution whose sums meet an instance threshold."""

    def __init__(self, prelu=False):
        super().__init__()
        self.sign, self.conv = Sign(), nn.Conv2d(2, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.prelu = InstancePReLU(6) if prelu else nn.Identity()
        self.threshold = InstanceThreshold(6, plus=True)
        self.head = nn.Linear(6 * 16, 4)
        with torch.no_grad():
            for layer in (self.conv, self.head):
                layer.weight.copy_(binary_sign(layer.weight))
            self.head.bias.copy_(torch.randint(-8, 9, (4,)) / 8)
            self.norm.weight.copy_(torch.tensor([1.0, -1.0, 0.5, -0.25, 0.0, 2.0]))
            self.norm.bias.normal_()
            self.norm.running_mean.normal_(0, 4)
            self.norm.running_var.uniform_(1, 9)

    def forward(self, x):
        x = self.prelu(self.norm(self.conv(self.sign(x))))
        return self.head(self.threshold(x).flatten(1))


@pytest.mark.parametrize("prelu", [False, True])
def test_static_thresholds_fold_into_integer_ones(prelu, tmp_path):
    torch.manual_seed(0)
    model = Network(prelu)
    nn.init.normal_(model.threshold.term.offset)
    if prelu:
        nn.init.normal_(model.prelu.before.offset)
        nn.init.normal_(model.prelu.after.offset)
    packed = check_bits(model, torch.randn(60, 2, 6, 6), tmp_path)
    assert kinds(packed) == ["sign", "conv2d", "threshold", "flatten", "linear"]
    assert packed.program.steps[2].operator.thresholds.dtype.kind == "i"


def test_what_is_static_is_asked_of_the_values_and_never_remembered():
    model = Network().eval()
    x = torch.randn(2, 2, 6, 6)
    assert model.threshold.term.is_static
    assert "reduce" not in kinds(pack(model, x))
    with torch.no_grad():
        model.threshold.term.slope[0, 2] = 1.0
    assert not model.threshold.term.is_static
    assert "reduce" in kinds(pack(model, x)), "one channel needs statistics"
    with torch.no_grad():
        model.threshold.term.slope.zero_()
        model.threshold.term.expand.weight[0, 0] = 1.0
    twin = copy.deepcopy(model)
    assert "reduce" in kinds(pack(twin, x)), "the channels' common term counts too"


def test_a_static_term_computes_the_same_with_statistics():
    term = InstanceTerm(3)
    nn.init.normal_(term.offset)
    x = maps()
    expected = term.offset.reshape(1, 3, 1, 1).expand(6, 3, 1, 1)
    for mode in (True, False):
        np.testing.assert_array_equal(term.train(mode)(x).detach(), expected.detach())
