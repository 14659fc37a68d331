"""Training settings by the number of training samples, for tasks that nobody has tuned."""

from __future__ import annotations

from whit.core.settings import Settings


def suitable_settings(samples: int) -> Settings:
    """Return settings for so many training samples.

    Args:
        samples: of the training split, >= 1.
    """
    if samples < 1_000:
        return Settings(epochs=40, batch_size=16, learning_rate=5e-3, weight_decay=0.2)
    if samples < 20_000:
        return Settings(epochs=30, batch_size=64, learning_rate=5e-3, weight_decay=0.2)
    return Settings(epochs=12, batch_size=256, learning_rate=5e-3, weight_decay=0.2)
