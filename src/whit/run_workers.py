"""Worker processes for runs: specs go in, folders come out.

A worker is `python -m whit.run_workers`. It reads orders as lines of JSON and answers with lines of
JSON; models and data never travel. It computes with as many threads as this process, so that its
results are the same; when there are more threads than cores, waiting threads sleep instead of
spinning. It ends when its parent does, however that happens.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from whit.core.budget import Budget
from whit.core.device import Device
from whit.core.execution import identity_of
from whit.core.fit import Progress
from whit.core.settings import Settings
from whit.core.task import Task
from whit.errors import WhitError
from whit.reporting.failures import reason_of
from whit.runs import Planned, carry_out_run
from whit.spec_strings import parse_entry
from whit.spec_strings import task as find_task

Order = tuple[int, Planned, bool, bool]  # number, run, whether it is a trial, whether again
Message = dict[str, Any]


class Workers:
    """Some worker processes, as a context: they are ended when the block is left.

    Args:
        count: of the processes.
        task: of all runs; a worker makes it again from its name.
        budget: limits for techniques that search.
    """

    def __init__(self, count: int, task: Task, budget: Budget) -> None:
        """Remember what the workers are to be told."""
        self.count = count
        self.task = task
        self.budget = budget
        self.messages: queue.Queue[tuple[int, Message]] = queue.Queue()
        self.processes: list[subprocess.Popen[str]] = []
        self.readers: list[threading.Thread] = []

    def __enter__(self) -> Workers:
        if self.count:
            _require_found_by_name(self.task)
        for number in range(self.count):
            process = _started(self.count)
            self.processes.append(process)
            reader = threading.Thread(target=self._read, args=(number, process), daemon=True)
            reader.start()
            self.readers.append(reader)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if kind is not None:
                process.terminate()
            with suppress(BrokenPipeError):  # it may have ended by itself
                assert process.stdin is not None
                process.stdin.close()
        for process, reader in zip(self.processes, self.readers, strict=True):
            process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.messages.put((number, json.loads(line)))
        self.messages.put((number, {"kind": "gone"}))

    def carry_out(
        self,
        orders: Sequence[Order],
        *,
        wanted: Callable[[int], bool],
        tell: Callable[[int, str, Progress | None], None],
        done: Callable[[int, bool], None],
        refused: Callable[[int, str, bool], None],
    ) -> None:
        """Give the orders out, in their order, and take the answers in.

        Args:
            orders: runs with their numbers.
            wanted: whether a run is still to be made, asked when its turn comes.
            tell: what a worker says on the way: run, state, progress in training.
            done: a run's result is in its folder; whether it was reused.
            refused: why a run could not be carried out; whether the reason is one of whit's own.

        Raises:
            WhitError: a worker was killed.
        """
        left = list(orders)
        busy: dict[int, Order] = {}
        free = list(range(len(self.processes)))
        while left or busy:
            while free and left:
                order = left.pop(0)
                if wanted(order[0]):
                    worker = free.pop()
                    busy[worker] = order
                    self._send(worker, order)
            if not busy:
                continue
            worker, message = self.messages.get()
            if worker not in busy:
                continue
            number, plan = busy[worker][:2]
            if message["kind"] == "step":
                fit = message["fit"]
                tell(number, message["state"], None if fit is None else _progress(fit))
                continue
            if message["kind"] == "gone":
                raise WhitError(_gone(plan, self.processes[worker]))
            if message["kind"] == "crashed":
                raise RuntimeError(f"In a worker process, '{plan.entry.label}':\n{message['text']}")
            free.append(worker)
            del busy[worker]
            if message["kind"] == "done":
                done(number, message["reused"])
            else:
                refused(number, message["reason"], message["stated"])

    def _send(self, worker: int, order: Order) -> None:
        _, plan, trial, again = order
        text = {
            "task": self.task.name,
            "entry": plan.entry.text,
            "label": plan.entry.label,
            "settings": plan.settings.as_dict(),
            "seed": plan.seed,
            "identity": plan.identity,
            "folder": str(plan.folder),
            "budget": str(self.budget),
            "trial": trial,
            "again": again,
        }
        stdin = self.processes[worker].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(text) + "\n")
            stdin.flush()
        except BrokenPipeError:
            return  # its reader says that it is gone


def _require_found_by_name(task: Task) -> None:
    try:
        find_task(task.name)
    except WhitError as error:
        raise WhitError(
            f"Worker processes make the task again from its name, and '{task.name}' cannot be "
            f"found: {error} Give the task by name or as my_file.py:name, or use one job."
        ) from None


def _started(count: int) -> subprocess.Popen[str]:
    threads = torch.get_num_threads()
    environment = dict(os.environ)
    if count * threads > (os.cpu_count() or 1):
        # Spinning threads that share a core stop one another for whole time slices.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    process = subprocess.Popen(
        [sys.executable, "-m", "whit.run_workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"path": sys.path, "threads": threads}) + "\n")
    process.stdin.flush()
    return process


def _progress(fields: Message) -> Progress:
    values: Message = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Progress(**values)


def _gone(plan: Planned, process: subprocess.Popen[str]) -> str:
    code = process.wait()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    memory = " (the system may have run out of memory)" if -code == signal.SIGKILL else ""
    return (
        f"The worker process of '{plan.entry.label}' with seed {plan.seed} {how}{memory}. Nothing "
        "finished is lost: repeat the command, with fewer jobs if memory is short."
    )


# ---- in the worker -------------------------------------------------------------------------------


def main() -> None:
    """Serve orders until the parent closes the pipe, or is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's code prints must not get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    start = json.loads(sys.stdin.readline() or "{}")
    if not start:
        return
    sys.path[:] = start["path"]
    torch.set_num_threads(start["threads"])
    orders: queue.Queue[str] = queue.Queue()
    working = threading.Event()
    threading.Thread(target=_listen, args=(orders, working), daemon=True).start()
    while line := orders.get():
        working.set()
        _serve(json.loads(line), answers)
        working.clear()


def _listen(orders: queue.Queue[str], working: threading.Event) -> None:
    for line in sys.stdin:
        orders.put(line)
    if working.is_set():
        os._exit(1)  # the parent is gone: nobody waits for this run
    orders.put("")


def _serve(order: Message, answers: IO[str]) -> None:
    def answer(kind: str, **rest: object) -> None:
        answers.write(json.dumps({"kind": kind, **rest}) + "\n")
        answers.flush()

    states = []

    def tell(state: str, fit: Progress | None) -> None:
        states.append(state)
        if state not in ("finished", "reused"):
            answer("step", state=state, fit=None if fit is None else asdict(fit))

    try:
        _carry_out(order, tell)
    except Exception as error:
        reason = reason_of(error, [order["entry"], order["task"]])
        if reason is None:
            import traceback

            answer("crashed", text=traceback.format_exc())
        else:
            answer("refused", reason=reason, stated=isinstance(error, WhitError))
    else:
        answer("done", reused="reused" in states)


def _carry_out(order: Message, tell: Callable[[str, Progress | None], None]) -> None:
    from whit.tuning import carry_out_trial

    made, checksum = _task_with_checksum(order["task"])
    entry = parse_entry(order["entry"])
    settings = Settings(**order["settings"])
    identity = identity_of(made, entry.technique, settings, order["seed"], Device(), checksum)
    if identity != order["identity"]:
        raise WhitError(
            f"The task or technique changed after '{order['label']}' was planned. Repeat the "
            "command."
        )
    folder = Path(order["folder"])
    plan = Planned(entry, settings, order["seed"], identity, folder, made.name)
    budget = Budget(order["budget"])
    if order["trial"]:
        carry_out_trial(plan, made, budget, tell)
    else:
        carry_out_run(plan, made, budget, tell, order["again"])


@cache
def _task_with_checksum(name: str) -> tuple[Task, str]:
    made = find_task(name)
    return made, made.checked_data().checksum()


if __name__ == "__main__":
    main()
