"""The loop of exploring and pretraining: each round begins with the last one's encoder, and a kill loses nothing."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import kits_environment
from robossl_envs.explore import explore_loop

from robossl.cli.main import main
from robossl.common.config import from_mapping, load, to_yaml
from robossl.data.store import open_store
from robossl.encoders.encoder_files import read_about
from robossl.errors import InputError
from robossl.training.run_config import RunConfig

CONFIG: dict[str, Any] = {
    "method": {"name": "simclr", "view": {"size": 32}},
    "encoder": {"backbone": "resnet10t", "input_hw": [32, 32]},
    "data": {"store": "the loop's own"},
    "train": {"steps": 4, "batch_size": 8, "checkpoint_every": 1, "log_every": 1, "sinks": []},
}


def written(folder: Path, **changed: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(to_yaml(from_mapping(CONFIG | changed, RunConfig)))
    return path


def loop(folder: Path, out: Path, **options: Any) -> str:
    common = {"env": "dots/Known-v0", "module": ("dots",), "rounds": 2, "frames": 50, "image_size": 32, "workers": 1}
    return explore_loop(written(folder), out=out, **{**common, **options})


def digest(encoder: Path) -> str:
    return str(read_about(encoder)["digest"])


def collection(out: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"round_{number}/frames/meta/collection.json").read_text())["settings"]
    return found


def test_each_round_looks_with_and_goes_on_with_the_encoder_of_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "loop"
    said = loop(tmp_path, out)
    assert said.startswith(
        f"{out}/round_1/run/encoder was trained in 2 rounds; next: robossl regress {out}/round_1/run"
    )
    *others, last = (shlex.split(line) for line in said.partition("next: ")[2].splitlines())
    assert all(main(words[1:]) == 0 for words in others)
    assert last[:2] == ["robossl", "export"]  # which refuses an encoder of four steps on dots
    printed = capsys.readouterr().out
    assert f"round 2 of 2: 50 frames by novelty, the encoder is {out}/round_0/run/encoder\n" in printed
    assert load(out / "round_1/run/config.yaml", RunConfig).encoder.init == f"{out}/round_0/run/encoder"
    encoders = [out / "start/encoder", out / "round_0/run/encoder", out / "round_1/run/encoder"]
    assert len({digest(encoder) for encoder in encoders}) == 3
    assert collection(out, 0)["encoder"] != collection(out, 1)["encoder"]
    assert collection(out, 0)["seed"] != collection(out, 1)["seed"]
    store = open_store(out / "store")
    assert store.num_frames >= 100 and store.num_episodes >= 6
    assert len(store.manifest.sources) == 2
    assert read_about(encoders[1])["extra"]["data"] != read_about(encoders[2])["extra"]["data"]

    before = [digest(encoder) for encoder in encoders]
    times = [path.stat().st_mtime_ns for path in sorted(out.glob("round_*/run/checkpoints/*/*"))]
    loop(tmp_path, out)
    assert times == [path.stat().st_mtime_ns for path in sorted(out.glob("round_*/run/checkpoints/*/*"))]
    assert [digest(encoder) for encoder in encoders] == before
    loop(tmp_path, out, rounds=3)
    assert load(out / "round_2/run/config.yaml", RunConfig).encoder.init == f"{out}/round_1/run/encoder"

    with pytest.raises(InputError, match=r"explores with --frames 50, not 60; --max-steps None, not 5; use the same"):
        loop(tmp_path, out, frames=60, max_steps=5)
    other = written(tmp_path, seed=1)
    with pytest.raises(InputError, match=r"another configuration \(seed: 0 -> 1\)"):
        explore_loop(other, env="dots/Known-v0", module=("dots",), frames=50, image_size=32, out=out)


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "loop"
    argv = ["explore-loop", str(written(tmp_path, train=CONFIG["train"] | {"steps": 12})), "--env", "dots/Slow-v0"]
    argv += ["--module", "dots", "--rounds", "2", "--frames", "40", "--image-size", "32", "--workers", "1"]
    for sign in ("round_0/frames/meta/episodes/*/*.parquet", "round_1/run/checkpoints/*"):
        process = subprocess.Popen(
            [sys.executable, "-m", "robossl", *argv, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=kits_environment(),
        )
        deadline = time.monotonic() + 200
        while not list(out.glob(sign)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
            time.sleep(0.005)
        process.kill()
        process.communicate()
    first = (out / "round_0/run/encoder/encoder.json").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "robossl", *argv, "--out", str(out)],
        capture_output=True,
        text=True,
        env=kits_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "round_1/run/encoder was trained in 2 rounds" in done.stdout
    assert (out / "round_0/run/encoder/encoder.json").read_bytes() == first
    assert [read_about(out / f"round_{k}/run/encoder")["extra"]["step"] for k in (0, 1)] == [12, 12]
    assert open_store(out / "store").num_frames >= 80


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, r"--rounds must be 1 to 1000, got 0"),
        ({"frames": 0}, r"--frames must be at least 1, got 0"),
        ({"agent": "novel"}, r"unknown agent 'novel'; did you mean 'novelty'"),
        ({"image_size": 16}, r"views of 32 px need frames of at least that size; got --image-size 16"),
        ({"env": "dots/Dto-v0"}, r"no environment 'dots/Dto-v0' is registered"),
    ],
)
def test_misuse_is_one_line(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = written(tmp_path)
    given: dict[str, Any] = {"env": "dots/Known-v0", "module": ("dots",), "image_size": 32, "frames": 40, **options}
    with pytest.raises(InputError, match=said) as caught:
        explore_loop(config, out=tmp_path / "loop", **given)
    assert "\n" not in str(caught.value)


def test_what_was_refused_can_be_mended_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dots/Blind-v0 cannot render"):
        loop(tmp_path, tmp_path / "loop", env="dots/Blind-v0")
    loop(tmp_path, tmp_path / "loop", rounds=1, agent="pink")
    assert "encoder" in collection(tmp_path / "loop", 0) and collection(tmp_path / "loop", 0)["encoder"] is None
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and is not an exploration loop; choose another --out"):
        loop(tmp_path, tmp_path / "taken")


def test_what_of_a_recipe_does_not_fit_the_loop_is_said_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path, knn={"label": "scene"}, optim={"warmup_steps": 9})
    common: dict[str, Any] = {"env": "dots/Known-v0", "module": ("dots",), "image_size": 32, "frames": 40, "workers": 1}
    for _ in range(2):
        explore_loop(config, out=tmp_path / "loop", rounds=1, agent="pink", **common)
        said = capsys.readouterr().out
        assert "online kNN is off: collected frames have no labels" in said
        assert "the warm-up of 9 steps does not fit into a run of 4: it is shortened to 1" in said
    kept = load(tmp_path / "loop/round_0/run/config.yaml", RunConfig)
    assert (kept.knn, kept.optim.warmup_steps) == (None, 1)
    assert written(tmp_path, knn={"label": "scene"}, train=CONFIG["train"] | {"steps": 6}) == config
    with pytest.raises(InputError, match=r"another configuration \(.*train.steps: 4 -> 6"):
        explore_loop(config, out=tmp_path / "loop", rounds=1, agent="pink", **common)
