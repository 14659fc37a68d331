import json
from importlib.metadata import version

from whit.cli.extras import extra_of
from whit.cli.machine import examine


def test_doctor_says_versions_and_what_is_missing(whit):
    found = json.loads(whit("doctor", "--json").stdout)
    assert found["versions"]["numpy"] == version("numpy")
    assert (
        found["extras"]["train"]["missing"] == [] or "torch" in found["extras"]["train"]["missing"]
    )
    assert isinstance(found["native"]["available"], bool)
    assert found["native"]["available"] or found["native"]["reason"]


def test_doctor_names_the_pip_line(whit, monkeypatch):
    monkeypatch.setattr("whit.cli.machine.EXTRAS", {"search": ("no_such_package_here",)})
    assert "pip install 'whit[search]'" in whit("doctor").stdout


def test_another_platform_is_called_untested(whit, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "Untested here" in whit("doctor").stdout


def test_the_data_folder_is_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("WHIT_DATA", str(tmp_path / "none"))
    assert "does not exist" in examine()["data"]
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    assert examine()["data"] == str(tmp_path)


def test_every_package_has_its_extra():
    assert extra_of("torch") == "train"
    assert extra_of("optuna") == "search"
    assert extra_of("json") is None
