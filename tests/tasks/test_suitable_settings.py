"""More samples: larger batches, fewer passes, more steps in all."""

from whit.tasks.suitable_settings import careful_settings, suitable_settings

SAMPLES = (100, 999, 1_000, 19_999, 20_000, 100_000)


def test_settings_follow_the_number_of_samples() -> None:
    found = [suitable_settings(samples) for samples in SAMPLES]
    assert [s.batch_size for s in found] == [16, 16, 64, 64, 256, 256]
    assert [s.epochs for s in found] == [40, 40, 30, 30, 10, 10]


def test_an_unknown_model_gets_a_smaller_rate() -> None:
    for samples in SAMPLES:
        known, careful = suitable_settings(samples), careful_settings(samples)
        assert careful.learning_rate < known.learning_rate
        assert (careful.epochs, careful.batch_size) == (known.epochs, known.batch_size)
