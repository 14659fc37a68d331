import torch
from torch import nn

from whit.parts.norm_statistics import reestimate_norms


def test_the_statistics_are_those_of_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].momentum = 0.3
    batches = [(torch.randn(50, 3) * 3 + 1,) for _ in range(4)]
    reestimate_norms(model, batches)
    hidden = [model[0](x).detach() for (x,) in batches]
    assert torch.allclose(
        model[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-5
    )
    assert torch.allclose(
        model[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-4
    )
    assert model[1].momentum == 0.3 and not any(m.training for m in model.modules())


def test_models_without_statistics_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    reestimate_norms(model, [(torch.randn(5, 3),)])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
