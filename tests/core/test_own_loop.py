import pytest
import torch

from whit.core.execution import Conditions, train
from whit.core.fit import Progress
from whit.core.technique import Technique
from whit.errors import SpecError
from whit.parts.surgery import weighted_layers
from whit.tasks.toys import toy_classification

TASK = toy_classification()
QUICK = TASK.settings.changed(epochs=2)


class Killed(Exception):
    pass


def noise_rounds(rounds=4, until=None):
    """A procedure that shakes the head with its own random numbers, round by round."""

    def procedure(run):
        model = run.fit(run.build())
        with run.loop(model, rounds) as loop:
            generator = torch.Generator().manual_seed(loop.seed)
            saved = loop.resume()
            if saved is not None:
                generator.set_state(saved["generator"])
            while loop.round < loop.rounds:
                weight = weighted_layers(model)[-1][1].weight.data
                weight += torch.randn(weight.shape, generator=generator) * 0.01
                weight += torch.randn(weight.shape) * 0.01
                model(run.data.train.inputs[0][:10])
                loop.meter.add_macs(5)
                state = {"generator": generator.get_state()}
                counted = {"moves": 3.0 * loop.round}
                ended = loop.round + 1 == until
                loop.end_round(float(loop.round), state, figures=counted, last=ended)
        return model

    return Technique(train=procedure, spec="noise()")


def run_it(technique, **rest):
    return train(TASK, technique, QUICK, Conditions(seed=1, **rest))


def weights(trained):
    return [t.clone() for t in trained.model.state_dict().values()]


def test_rounds_are_charged_recorded_and_shown():
    seen: list[Progress] = []
    trained = run_it(noise_rounds(), progress=seen.append)
    plain = run_it(Technique())
    record = trained.run.history[1]
    assert record["loss"] == [0.0, 1.0, 2.0, 3.0] and record["epochs"] == 4
    assert all(0 <= v <= 1 for v in record["valid"])
    mine = [p for p in seen if p.fit == 1]
    assert [p.epoch for p in mine] == [1, 2, 3, 4] and mine[0].epochs == 4
    assert [p.figures["moves"] for p in mine] == [0, 3, 6, 9]
    assert record["figures"] == [{"moves": 3.0 * k} for k in range(4)]
    assert mine[0].metric == TASK.metric_name and mine[-1].seconds_left == 0
    charged = trained.run.meter.charge().train_macs - plain.run.meter.charge().train_macs
    one_call = (charged - 4 * 5) / 4
    # Ten samples with gradients switched on: three forwards each; validation costs nothing.
    forward = sum(layer.weight.numel() for _, layer in weighted_layers(trained.model))
    assert one_call == 3 * 10 * forward


@pytest.mark.parametrize("killed_in", [1, 3])
def test_a_killed_loop_goes_on_to_the_same_weights(tmp_path, killed_in):
    whole = run_it(noise_rounds())

    def kill(progress):
        if progress.fit == 1 and progress.epoch == killed_in:
            raise Killed

    with pytest.raises(Killed):
        run_it(noise_rounds(), out=tmp_path, progress=kill)
    seen = []
    resumed = run_it(noise_rounds(), out=tmp_path, progress=seen.append)
    assert [p.epoch for p in seen if p.fit == 1] == list(range(killed_in + 1, 5))
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    charge, whole_charge = resumed.run.meter.charge(), whole.run.meter.charge()
    assert charge.train_macs == whole_charge.train_macs
    assert resumed.run.history[1]["loss"] == whole.run.history[1]["loss"]


def test_a_loop_may_end_before_its_rounds_are_used():
    record = run_it(noise_rounds(rounds=9, until=2)).run.history[1]
    assert record["epochs"] == 2 and record["loss"] == [0.0, 1.0]


def test_a_damaged_checkpoint_is_said_and_the_loop_begins_again(tmp_path):
    def kill(progress):
        if progress.fit == 1 and progress.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run_it(noise_rounds(), out=tmp_path, progress=kill)
    (tmp_path / "checkpoint-1.pt").write_bytes(b"torn")
    resumed = run_it(noise_rounds(), out=tmp_path)
    assert "damaged" in resumed.run.history[1]["warnings"][0]
    assert len(resumed.run.history[1]["loss"]) == 4


def test_a_loop_without_rounds_is_refused():
    with pytest.raises(SpecError, match="0 rounds"):
        run_it(noise_rounds(rounds=0))
