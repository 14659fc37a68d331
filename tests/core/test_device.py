import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from whit.core.device import Device
from whit.errors import SettingsError


def test_alone_is_the_trivial_case(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    device = Device.from_environment()
    assert (device.rank, device.world, device.backend, device.writes) == (0, 1, "", True)
    tensor = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(device.exchange([tensor])[0], tensor.unsqueeze(0))
    device.broadcast([tensor])
    device.barrier()
    assert device.exchanged_bytes == 0
    assert device.torch == torch.device("cpu")


def test_only_rank_zero_writes():
    assert [Device(rank=r, world=3).writes for r in range(3)] == [True, False, False]


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(SettingsError, match="expected 'cpu'"):
        _ = Device(name=name).torch


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no GPU"):
        _ = Device(name="cuda").torch


# What each of the two processes does; it prints one line of JSON.
PROCESS = """
import json, sys, torch, whit
from whit.core.device import Device
from whit.tasks.toys import toy_classification

torch.set_num_threads(1)
device = Device.from_environment()
found = {"rank": device.rank, "world": device.world}

mine = torch.arange(4.0) + 10 * device.rank
found["gathered"] = device.exchange([mine])[0].tolist()
found["after_exchange"] = device.exchanged_bytes
device.broadcast([mine])
found["broadcast"] = mine.tolist()
found["after_broadcast"] = device.exchanged_bytes
device.barrier(60)

# Weights of a convolution are channels-last while they train.
strided = torch.arange(2.0 * 3 * 2 * 2).reshape(2, 3, 2, 2) + 100 * device.rank
strided = strided.to(memory_format=torch.channels_last)
try:
    rows = device.exchange([strided])[0]
    found["strided"] = [torch.equal(rows[r], strided + 100 * (r - device.rank)) for r in range(2)]
    device.broadcast([strided])
    found["strided_sum"] = float(strided.sum())
except Exception as error:
    found["strided"] = repr(error)
device.barrier(60)

task = toy_classification()
device = Device.from_environment()
result = whit.execute(task, None, task.settings.changed(epochs=1), device=device, out=sys.argv[1])
found["has_scorecard"] = result.scorecard is not None
found["weights"] = float(sum(p.sum() for p in result.model.parameters()))
device.barrier(60)
print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launched(rank, port, folder):
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Run both processes once; return what each found, and the folder."""
    folder, port = tmp_path_factory.mktemp("two") / "run", free_port()
    processes = [launched(rank, port, folder) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs], folder


def test_two_processes_know_their_place(two_processes):
    found, _ = two_processes
    assert [(f["rank"], f["world"]) for f in found] == [(0, 2), (1, 2)]


def test_two_processes_exchange_and_are_charged(two_processes):
    found, _ = two_processes
    rows = [[0.0, 1, 2, 3], [10.0, 11, 12, 13]]
    assert [f["gathered"] for f in found] == [rows, rows]
    assert [f["after_exchange"] for f in found] == [16, 16]
    assert [f["broadcast"] for f in found] == [rows[0], rows[0]]
    assert [f["after_broadcast"] for f in found] == [32, 16], "rank 0 alone sends"


def test_two_processes_exchange_channels_last_weights(two_processes):
    found, _ = two_processes
    assert [f["strided"] for f in found] == [[True, True], [True, True]]
    assert [f["strided_sum"] for f in found] == [276.0, 276.0]


def test_only_rank_zero_measures_and_writes_a_result(two_processes):
    found, folder = two_processes
    assert [f["has_scorecard"] for f in found] == [True, False]
    written = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert written == ["model.safetensors", "model.whit", "result.json", "test_correct.npy"]


def test_each_rank_has_its_own_seed(two_processes):
    found, _ = two_processes
    assert found[0]["weights"] != found[1]["weights"]
