import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.core.task import accuracy
from whit.errors import WhitError
from whit.measure.columns import NUMERIC_COLUMNS
from whit.measure.latency import Latency
from whit.measure.meter import Charge
from whit.measure.scorecard import Scorecard, Subject, count_parameters, measure
from whit.parts.route import GroupSumRule, Route


@dataclass
class Samples:
    inputs: tuple
    target: torch.Tensor
    reads: int = 0

    def __len__(self):
        return len(self.target)


def samples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator)
    return Samples((inputs,), (inputs.sum(1) > 0).long())


def predict(model, split):
    split.reads += 1
    with torch.no_grad():
        return model(split.inputs[0])


def subject():
    valid, test = samples(30, 1), samples(40, 2)
    example = (samples(8, 3).inputs[0],)
    return Subject(
        predict, valid, test, accuracy, "accuracy", example, ("no", "yes"), info={"seed": 3}
    )


class Halve(nn.Module):
    def forward(self, weight):
        return weight * torch.tensor([1.0, 0.0]).repeat(weight.shape[1] // 2)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def test_a_packable_model_has_every_number():
    about = subject()
    measured = measure(model(), about, Charge(100, 1.5, 1000, 0))
    row = measured.scorecard.as_dict()
    assert row["params"] == 6 * 8 + 8 + 8 * 2 + 2
    assert row["macs"] == 6 * 8 + 8 * 2
    assert row["macs_by_width"] == {"w32a32": 64}
    assert row["stored_bytes"] == len(measured.packed.to_bytes())
    assert row["weight_bytes"] >= 4 * 74
    assert row["packed_agreement"] == 1.0
    assert row["energy_nj"] == pytest.approx(row["energy_compute_nj"] + row["energy_memory_nj"])
    unknown = {name for name, value in row.items() if value is None}
    assert unknown == set(row["reasons"])
    untimed = {"latency_ms", "latency_iqr_ms", "torch_latency_ms"}
    assert unknown & set(NUMERIC_COLUMNS) == untimed
    assert about.test.reads == 1


def test_the_layers_of_the_file_are_listed():
    row = measure(model(), subject(), Charge(100, 1.5, 1000, 0)).scorecard.as_dict()
    assert [layer["module"] for layer in row["layers"]] == ["0", "2"]
    first = row["layers"][0]
    assert (first["kind"], first["format"], first["bits"]) == ("linear", "float32", 32.0)
    assert (first["weights"], first["before_bytes"], first["after_bytes"]) == (48, 192, 192)
    assert "float32" in first["reason"]
    assert Scorecard.from_dict(json.loads(json.dumps(row))).layers == row["layers"]


def test_the_agreement_of_a_group_is_that_of_its_combined_output():
    from dataclasses import replace

    from whit.parts.group import Group

    group = Group([model(), model()])
    about = replace(
        subject(),
        predict=lambda network, split: network(split.inputs[0]).mean(0).detach(),
        combine=lambda output: output.mean(0),
    )
    assert measure(group, about, Charge(1, 1.0, 1, 0)).scorecard.packed_agreement == 1.0


def test_the_scores_are_those_of_the_splits():
    about = subject()
    net = model()
    measured = measure(net, about, Charge())
    expected = predict(net, about.test).argmax(1) == about.test.target
    assert measured.scorecard.test_score == pytest.approx(expected.float().mean().item())
    assert np.array_equal(measured.test_correct, expected.numpy().astype(np.uint8))
    assert measured.test_correct.dtype == np.uint8


def test_an_unpackable_model_says_why_and_is_never_zero():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.erfinv(x.tanh() * 0.5)[:, :2]

    card = measure(Odd(), subject(), Charge()).scorecard
    for column in ("stored_bytes", "weight_bytes", "macs", "energy_nj", "packed_agreement"):
        assert getattr(card, column) is None
        assert "cannot pack" in card.reasons[column]


def test_parameters_are_counted_as_the_forward_call_sees_them():
    net = nn.Sequential(nn.Linear(4, 3, bias=False))
    assert count_parameters(net) == (12, 12)
    parametrize.register_parametrization(net[0], "weight", Halve())
    assert count_parameters(net) == (12, 6)


def test_shared_parameters_count_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    assert count_parameters(net)[0] == 9


def test_as_dict_and_back():
    card = measure(model(), subject(), Charge(1, 2.0, None, 4)).scorecard
    assert "train_peak_bytes" in card.reasons
    assert Scorecard.from_dict(card.as_dict()) == card
    assert Scorecard.from_dict({**card.as_dict(), "column_of_the_future": 1}) == card
    with pytest.raises(WhitError, match="valid_accuracy"):
        Scorecard.from_dict({"metric": "accuracy"})


def test_latency_is_filled_in_later():
    card = measure(model(), subject(), Charge()).scorecard
    assert card.latency_ms is None
    timed = card.with_latency(Latency(0.5, 0.1, "reference", 1, 100))
    assert (timed.latency_ms, timed.latency_backend) == (0.5, "reference")
    assert "latency_ms" not in timed.reasons
    assert timed.reasons["torch_latency_ms"] == "the model in torch was not timed"
    both = card.with_latency(Latency(0.5, 0.1, "native", 1, 100, 0.7))
    assert both.torch_latency_ms == 0.7
    assert not any("latency" in name for name in both.reasons)


def test_a_route_costs_what_its_inputs_run():
    torch.manual_seed(0)
    members = [nn.Linear(6, 2), nn.Linear(6, 2), nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))]
    rule = GroupSumRule([[0], [1]], 0.1, temperature=2.0)
    route = Route(members, rule, [(0,), (0, 1), (2,)]).eval()
    about = subject()
    row = measure(route, about, Charge(100, 1.5, 1000, 0)).scorecard.as_dict()
    situations = route.route(about.valid.inputs[0])
    shares = (torch.bincount(situations, minlength=3) / len(situations)).tolist()
    assert min(shares) > 0
    assert row["route_shares"] == [pytest.approx(shares)]
    assert row["macs"] == round(12 + 12 * shares[1] + 64 * shares[2])
    assert row["macs_if_all_ran"] == 12 + 12 + 64
    assert "route_shares" not in row["reasons"]
    alone = measure(members[0], subject(), Charge(100, 1.5, 1000, 0)).scorecard
    assert row["energy_compute_nj"] / alone.energy_compute_nj == pytest.approx(
        row["macs"] / 12, rel=0.05
    )
    assert row["weight_bytes"] >= 4 * (14 + 14 + 74)
