import json


def test_list_names_techniques_and_tasks(whit):
    result = whit("list", "--json")
    found = json.loads(result.stdout)
    assert "binarized_network" in {item["name"] for item in found["techniques"]}
    assert "digits" in {item["name"] for item in found["tasks"]}
    text = whit("list").stdout
    assert "binarized_network" in text
    assert "digits" in text


def test_show_tells_options_and_defaults(whit):
    found = json.loads(whit("show", "one_cycle_pruning", "--json").stdout)
    options = {option["name"]: option["default"] for option in found["options"]}
    assert options["sparsity"] == 0.9
    assert found["source"].endswith("one_cycle_pruning.py")
    text = whit("show", "one_cycle_pruning").stdout
    assert "sparsity: float = 0.9" in text


def test_show_knows_tasks_and_own_files(whit, own_folder):
    assert "model: str = 'mlp4'" in whit("show", "digits").stdout
    assert "rate: float = 0.01" in whit("show", "own.py:shrink").stdout
    assert whit("show", "own.py:nn").exit_code == 2
    result = whit("show", "own.py")
    assert result.exit_code == 2
    assert "own.py:task" in result.stderr


def test_show_tells_model_data_and_settings_of_an_own_task(whit, own_folder):
    found = json.loads(whit("show", "own.py:task", "--json").stdout)
    assert found["samples"] == {"train": 128, "valid": 64, "test": 64}
    assert found["params"] == 6 * 16 + 16 + 16 * 2 + 2
    text = whit("show", "own.py:task").stdout
    assert "128 train, 64 valid, 64 test samples of shape [6]" in text
    assert "Classes:  low, high" in text
    assert "epochs=2" in text
    assert "ReLU" in text
