import json

from whit.core.technique import AfterTraining, train_once
from whit.measure.provenance import code_digest, provenance, run_identity, sources_of

RUN = {
    "spec": "plain()",
    "task": "iris",
    "data_checksum": "abc",
    "settings": {"epochs": 3},
    "seed": 0,
}


def test_provenance_is_plain_and_complete():
    found = provenance()
    json.dumps(found)
    assert found["versions"]["torch"]
    assert {"whit", "python", "cpu", "threads", "commit", "dirty", "time"} <= set(found)


def test_the_identity_is_stable_and_every_part_changes_it():
    base = run_identity(**RUN)
    assert run_identity(**RUN) == base
    changes = [
        {"spec": "one_cycle_pruning()"},
        {"task": "digits"},
        {"data_checksum": "abd"},
        {"settings": {"epochs": 4}},
        {"seed": 1},
        {"device": "cuda"},
    ]
    others = {run_identity(**{**RUN, **change}) for change in changes}
    assert len(others | {base}) == len(changes) + 1


def test_the_source_of_an_own_file_is_part_of_the_identity(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("a = 1\n")
    run = {**RUN, "spec": f"one_cycle_pruning(x='+ (') + {path}:mine(y=1) @ epochs=3"}
    first = run_identity(**run)
    path.write_text("a = 2\n")
    assert run_identity(**run) != first


def test_sources_of_our_own_techniques_are_found():
    found = sources_of("binarized_network(scale='one_cycle_pruning()') + plain()", "methods")
    assert [item.partition(":")[0] for item in found] == ["binarized_network", "plain"]


def test_a_refinement_is_known_by_its_functions_and_not_by_its_address():
    def refined(amount, first=train_once):
        return AfterTraining(lambda run, model: amount, first)

    def digest(value):
        return code_digest(value)

    assert digest(refined(1)) == digest(refined(1))
    assert digest(refined(1)) != digest(refined(2))
    assert digest(refined(1, refined(3))) != digest(refined(1, refined(4)))
    hooks = (lambda model, plan: None,)
    assert digest(lambda: hooks) == digest(lambda: hooks)
