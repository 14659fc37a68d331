"""Training settings by the number of training samples, for tables and arrays of any kind."""

from __future__ import annotations

from whit.core.settings import Settings


def suitable_settings(samples: int) -> Settings:
    """Return settings for the control model of a table with so many training rows.

    Chosen by validation accuracy on the public tables spambase, churn, magic and adult.

    Args:
        samples: of the training split, >= 1.
    """
    if samples < 1_000:
        return Settings(epochs=40, batch_size=16, learning_rate=5e-3, weight_decay=0.2)
    if samples < 20_000:
        return Settings(epochs=30, batch_size=64, learning_rate=5e-3, weight_decay=0.5)
    return Settings(epochs=10, batch_size=256, learning_rate=5e-3, weight_decay=0.5)


def careful_settings(samples: int) -> Settings:
    """Return settings for a model that is not known: it may lack batch norm.

    Args:
        samples: of the training split, >= 1.
    """
    return suitable_settings(samples).changed(learning_rate=2e-3, weight_decay=0.02)
