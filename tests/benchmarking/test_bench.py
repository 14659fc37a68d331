"""A whole benchmark of two small files, its table, its page and its JSON."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from bench_networks import binary_mlp, float_chain, inputs_of, packed
from rich.console import Console

from whit.benchmarking.bench import BenchRow, Candidate, Plan, run_bench
from whit.benchmarking.peers import CHANNELS_LAST, PEERS, Peers
from whit.benchmarking.turns import Times
from whit.errors import MissingExtra, WhitError
from whit.reporting.bench_table import WIDTH, bench_view
from whit.reporting.page_bench import bench_html, write_bench_page


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    files = [
        packed(binary_mlp(), (64,), folder / "binary.whit"),
        packed(float_chain(), (1, 8, 8), folder / "<float>.whit"),
    ]
    plan = Plan(batches=(1, 3), threads=(1, 2), turns=1, cold=True)
    with pytest.MonkeyPatch.context() as patch:
        # Spinning threads disturb only the times, and these are not looked at.
        patch.setattr("whit.benchmarking.turns.PAUSE_SECONDS", 0.0)
        return run_bench(files, plan, command="whit bench <files>")


def text_of(bench):
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(bench_view(bench))
    return console.file.getvalue()


def test_every_combination_is_a_row_and_every_peer_is_timed_or_named(bench):
    rows = [(r.file[-12:], r.batch, r.threads, r.caches) for r in bench.rows]
    assert len(rows) == len(set(rows)) == 2 * 2 * 2 * 2
    for network in bench.networks:
        timed = {c.name for r in bench.rows if r.file == network.file for c in r.candidates[1:]}
        assert timed | set(network.missing) == set(PEERS)
        assert not timed & set(network.missing)
    assert bench.networks[0].missing == {CHANNELS_LAST: "it has no convolution of images"}
    assert bench.networks[1].missing == {}


def test_files_agree_with_numpy_and_their_twins_are_described(bench):
    binary, floats = bench.networks
    assert (binary.same_class, binary.samples) == (64, 64)
    assert (binary.twin_same, floats.twin_same) == (False, True)
    assert binary.twin_bytes > 8 * (binary.stored_bytes - 600)
    assert bench.rows[0].whit.name.startswith("whit ")
    assert bench.rows[0].whit.stored_bytes == binary.stored_bytes


def row(**times):
    kinds = {"whit native": "whit", "torch fp32": "float32", "ORT": "float32", "int8": "int8"}
    candidates = [
        Candidate(name, kind, 1, Times(times[name[:4].strip()], 0.5, 0.1, 9))
        for name, kind in kinds.items()
    ]
    return BenchRow("f", 1, 1, "warm", tuple(candidates), "")


def test_the_best_peer_of_each_kind_is_named_with_its_ratio():
    found = row(whit=1.0, torc=4.0, ORT=3.0, int8=0.98).as_dict()
    assert (found["torch"], found["torch_ratio"]) == ("torch fp32", 4.0)
    assert (found["best_float32"], found["best_float32_ratio"]) == ("ORT", 3.0)
    assert (found["best_int8"], found["best_int8_ratio"]) == ("int8", 0.98)
    assert found["best_int8_minimum_ratio"] == 1.0


def test_the_table_and_the_page_say_what_was_measured(bench):
    text, page = text_of(bench), bench_html(bench)
    assert max(map(len, text.splitlines())) <= WIDTH
    for part in ("float32 twin", "the same network in float32", "has no convolution", "GFLOP/s"):
        assert part in " ".join(text.split())
        assert part in page
    assert page.count("<svg") == len(bench.rows)
    assert "<script" not in page
    assert "&lt;float>.whit" in page or "&lt;float&gt;.whit" in page
    assert "whit bench &lt;files" in page
    assert not re.search(r'(src|href)="(?!#)', page)


def test_a_disturbed_machine_gives_no_verdict(bench):
    rows = tuple(replace(r, verdict="disturbed") for r in bench.rows)
    found = replace(bench, rows=rows)
    assert "no verdicts" in bench_html(found)
    assert "Disturbed: before or after" in " ".join(text_of(found).split())


def test_the_result_is_plain_json(bench):
    found = json.loads(json.dumps(bench.as_dict()))
    assert found["schema"] == 1
    assert len(found["rows"]) == 16
    assert set(found["checks"]) == {"1", "2"}
    assert found["rows"][0]["candidates"][0]["median_ms"] > 0


def test_given_inputs_are_used(tmp_path):
    path = packed(binary_mlp(), (64,), tmp_path / "m.whit")
    inputs = inputs_of((64,), 3).numpy()
    found = run_bench([path], Plan(batches=(2,), turns=1, peers=()), inputs=inputs)
    assert found.rows[0].verdict in ("no peer", "disturbed")
    assert len(found.rows[0].candidates) == 1
    with pytest.raises(WhitError):
        run_bench([path], Plan(turns=1, peers=()), inputs=np.zeros((3, 5), np.float32))


def test_what_another_library_raises_is_a_reason():
    def failing(error):
        def build():
            raise error

        return build

    peers = Peers()
    peers.attempt("a", failing(RuntimeError("it broke\nand more")))
    peers.attempt("b", failing(ModuleNotFoundError("No module", name="torch")))
    peers.attempt("c", failing(MissingExtra("onnx", "onnx")))
    assert peers.missing["a"] == "RuntimeError: it broke"
    assert peers.missing["b"] == "torch is not installed"
    assert "whit[onnx]" in peers.missing["c"]


def test_impossible_plans_are_refused():
    for changes in ({"batches": (0,)}, {"threads": ()}, {"turns": 0}, {"batches": (5000,)}):
        with pytest.raises(WhitError, match="give whole numbers"):
            Plan(**changes)


def test_a_page_that_cannot_be_written(bench, tmp_path):
    with pytest.raises(WhitError, match="could not be written"):
        write_bench_page(bench, tmp_path / "missing" / "page.html")
