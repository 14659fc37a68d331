"""Names of the scorecard's numeric columns, for budgets and tables; standard library only."""

from __future__ import annotations

# Known only of a model that could be packed.
PACKED_COLUMNS = (
    "weight_bytes",
    "stored_bytes",
    "macs",
    "macs_if_all_ran",
    "activation_peak_bytes",
    "flops_per_byte",
    "energy_nj",
    "energy_compute_nj",
    "energy_memory_nj",
    "latency_ms",
    "latency_iqr_ms",
    "torch_latency_ms",
    "packed_agreement",
)
NUMERIC_COLUMNS = (
    "params",
    "nonzero_params",
    *PACKED_COLUMNS,
    "train_macs",
    "train_seconds",
    "train_peak_bytes",
    "exchanged_bytes",
)
