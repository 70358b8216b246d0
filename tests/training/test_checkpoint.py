import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robossl.errors import InputError, ResourceError
from robossl.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def make(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_round_trip_is_exact_and_old_ones_go(tmp_path: Path) -> None:
    model, optimizer = make()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step=step, method=model, optimizer=optimizer, state={"a": 1}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000002", "step_00000003"]
    assert len({path.stat().st_mode for path in checkpoints(tmp_path)[-1].iterdir()}) == 1, "who reads one, reads all"
    other, other_optimizer = make(seed=1)
    assert load_checkpoint(checkpoints(tmp_path)[-1], method=other, optimizer=other_optimizer) == (
        3,
        {"a": 1},
    )
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    before, after = optimizer.state_dict(), other_optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for index, slots in before["state"].items():
        for key, value in slots.items():
            assert torch.equal(value, after["state"][index][key])


def test_a_folder_without_its_last_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    model, optimizer = make()
    path = save_checkpoint(tmp_path, step=1, method=model, optimizer=optimizer, state={}, keep=2)
    (path / "state.json").unlink()
    assert checkpoints(tmp_path) == []


def test_one_is_replaced_whole_and_what_a_kill_left_goes(tmp_path: Path) -> None:
    model, optimizer = make()
    path = save_checkpoint(tmp_path, step=1, method=model, optimizer=optimizer, state={}, keep=1)
    for name in (".step_00000001.old", ".step_00000002.tmp"):
        shutil.copytree(path, tmp_path / name)
        (tmp_path / name / "method.safetensors").unlink()
    assert checkpoints(tmp_path) == [path]
    (path / "optimizer.safetensors").unlink()
    save_checkpoint(tmp_path, step=1, method=model, optimizer=optimizer, state={"again": True}, keep=1)
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path, method=model, optimizer=optimizer) == (1, {"again": True})


def test_a_damaged_one_is_refused_in_a_line(tmp_path: Path) -> None:
    model, optimizer = make()
    path = save_checkpoint(tmp_path, step=1, method=model, optimizer=optimizer, state={}, keep=2)
    file = path / "method.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cannot resume from .*step_00000001"):
        load_checkpoint(path, method=model, optimizer=optimizer)


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from torch import nn
from robossl.training.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = nn.Linear(400, 400)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
folder = Path(sys.argv[1])
save_checkpoint(folder, step=1, method=model, optimizer=optimizer, state={}, keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_checkpoint(folder, step=2, method=model, optimizer=optimizer, state={}, keep=1)
"""


def test_when_the_disk_is_full_the_earlier_checkpoint_survives(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE  # a file-size limit: write() fails as on a full disk, without needing one
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert ResourceError.__name__ in done.stderr and "could not write checkpoint" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
