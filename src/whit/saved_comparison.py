"""Write down what a comparison consisted of, and read it back without training.

The record names runs, it does not repeat their numbers: those stay in the folders of the runs. Only
what is known of no single run is kept here (latencies, which were timed side by side, and how
learning rates were chosen).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from whit.atomic_files import write_atomically
from whit.comparison import Comparison, test_reads
from whit.core.budget import Budget
from whit.core.settings import Settings
from whit.core.technique import Technique
from whit.errors import DataError, WhitError
from whit.rows import rows_of
from whit.runs import Finished, Planned, plan_runs, read_row, task_folder
from whit.spec_strings import Entry, parse_entry
from whit.spec_strings import task as find_task
from whit.tuning import Trial, Tuned

RECORD = "comparison.json"
SCHEMA = 1
_LATENCY = (
    "latency_ms",
    "latency_iqr_ms",
    "latency_backend",
    "latency_threads",
    "torch_latency_ms",
)
_LOST = "the folder of a run is gone or damaged; repeat the comparison"


def save_comparison(comparison: Comparison) -> Path:
    """Write the record beside the runs; return its path.

    Raises:
        WhitError: the folder cannot be written.
    """
    record = {
        "schema": SCHEMA,
        "task": comparison.task,
        "budget": str(comparison.budget),
        "tolerance": comparison.tolerance,
        "rows": [
            {
                "text": row.spec,
                "label": row.label,
                "failed": row.failed,
                "runs": [_run_record(run) for run in row.runs],
            }
            for row in comparison.rows
        ],
        "tuned": {text: _tuned_record(found) for text, found in comparison.tuned.items()},
    }
    folder = task_folder(comparison.out, comparison.task)
    text = json.dumps(record, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECORD, lambda path: path.write_text(text))
    except OSError as error:
        raise WhitError(
            f"The record of the comparison could not be written to '{folder}' ({error.strerror}). "
            "All runs are kept; free some space or choose another --out, and repeat the command."
        ) from None
    return folder / RECORD


def _run_record(run: Finished) -> dict[str, Any]:
    return {
        "seed": run.planned.seed,
        "identity": run.planned.identity,
        "settings": run.planned.settings.as_dict(),
        "changes": dict(run.planned.changes),
        "latency": {name: run.columns.get(name) for name in _LATENCY},
    }


def _tuned_record(tuned: Tuned) -> dict[str, Any]:
    return {**asdict(tuned), "failed": list(tuned.failed.items())}


def load_comparison(out: str | Path, task: str) -> Comparison:
    """Return the last comparison of a task; its rows are `stale` where a new run would differ.

    Args:
        out: folder of runs and results.
        task: reference of the task, as it was given to the comparison.

    Raises:
        DataError: there is none, or its record is damaged.
    """
    path = task_folder(out, task) / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        tuned = {text: _tuned(found) for text, found in record["tuned"].items()}
        return _rebuilt(record, str(out), tuned)
    except FileNotFoundError:
        raise DataError(
            f"'{path}' is missing: no comparison of '{task}' was finished in '{out}'. Make one: "
            f"whit compare {task} --out {out}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"The record '{path}' cannot be read ({type(error).__name__}: {error}). Repeat the "
            "comparison; finished runs are reused."
        ) from None


def _tuned(record: Mapping[str, Any]) -> Tuned:
    trials = tuple(Trial(**trial) for trial in record["trials"])
    return Tuned(record["learning_rate"], trials, dict(record["failed"]))


def _rebuilt(record: dict[str, Any], out: str, tuned: dict[str, Tuned]) -> Comparison:
    name = record["task"]
    entries = [_entry(row) for row in record["rows"]]
    failed, finished = {}, []
    for entry, row in zip(entries, record["rows"], strict=True):
        runs = [_finished(run, entry, name, out) for run in row["runs"]]
        whole = [run for run in runs if run is not None]
        finished += whole
        if row["failed"] or len(whole) < len(runs):
            failed[entry.text] = row["failed"] or _LOST
    if not entries or entries[0].text in failed:
        raise DataError(
            f"The runs of the control of '{name}' in '{out}' are gone or damaged. Repeat the "
            "comparison."
        )
    now = _identities_now(name, [run.planned for run in finished], out)
    rows = tuple(
        replace(row, stale=any(run.planned.identity not in now for run in row.runs))
        for row in rows_of(entries, finished, failed, tuned=tuned)
    )
    return Comparison(
        name,
        rows,
        Budget(record["budget"]),
        out,
        test_reads(out, name),
        record["tolerance"],
        tuned,
    )


def _entry(row: Mapping[str, Any]) -> Entry:
    try:
        return replace(parse_entry(row["text"]), label=row["label"])
    except WhitError:  # its file has gone: the numbers can still be shown
        spec = row["text"].partition(" @ ")[0]
        return Entry(Technique(spec=spec, brief=spec), {}, row["text"], row["label"])


def _finished(run: Mapping[str, Any], entry: Entry, task: str, out: str) -> Finished | None:
    folder = task_folder(out, task) / run["identity"]  # the store may have been moved
    row = read_row(folder)
    if row is None:
        return None
    correct = None
    if (folder / "test_correct.npy").exists():
        correct = np.load(folder / "test_correct.npy", allow_pickle=False)
    known = {name for name in _LATENCY if run["latency"].get(name) is not None}
    reasons = {k: why for k, why in row["scorecard"]["reasons"].items() if k not in known}
    card = {**row["scorecard"], **run["latency"], "reasons": reasons}
    settings = Settings(**run["settings"])
    plan = Planned(entry, settings, run["seed"], run["identity"], folder, task, run["changes"])
    return Finished(plan, {**row, "scorecard": card}, True, correct)


def _identities_now(name: str, planned: list[Planned], out: str) -> set[str]:
    """Return the identities that the same runs would have today; none if they cannot be planned."""
    try:
        task = find_task(name)
        return {
            again.identity
            for plan in planned
            for again in plan_runs([plan.entry], task, [plan.seed], plan.changes, out)
        }
    except Exception:  # a user's task may fail in any way: what cannot be made again is stale
        return set()
