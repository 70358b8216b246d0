"""`robossl regress` and `evaluate`: options that cannot work are one line, before anything is embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from robossl_envs.collect import collect
from terminal import on_a_terminal

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.evaluation.state import StateSettings, open_probe

COMMANDS = {"regress": ["regress", "absent"], "evaluate": ["evaluate", "absent", "--label", "scene"]}


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command line that cannot work."""
    assert main(argv) == InputError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("robossl: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("evaluate", ["--seed", "-1"], "seed must lie in 0 to 4294967295, got -1"),
        ("evaluate", ["--seed", "9" * 20], f"seed must lie in 0 to 4294967295, got {'9' * 20}"),
        ("regress", ["--seed", "-1"], "seed must lie in 0 to 4294967295, got -1"),
        ("regress", ["--frames-per-episode", "0"], "frames_per_episode must be 1 or more, got 0"),
        ("regress", ["--bootstrap", "0"], "bootstrap must be 100 or more, got 0"),
        ("regress", ["--random-seeds", "0"], "random_seeds must be 1 or more, got 0"),
    ],
)
def test_a_bad_option_is_one_line(
    command: str, options: list[str], message: str, clip_store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused([*COMMANDS[command], "--store", str(clip_store_path), *options], capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_that_cannot_be_written_is_refused_before_the_store_is_opened(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out, message in [
        (tmp_path, f"--out must be a file, got the folder {tmp_path}"),
        (tmp_path / "file" / "x.json", "choose another --out"),
        (Path("/proc/absent/x.json"), "choose another --out"),
    ]:
        argv = [*COMMANDS[command], "--store", str(tmp_path / "absent"), "--out", str(out)]
        assert message in refused(argv, capsys)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_terminal_shows_a_table_and_a_pipe_gets_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect(
        env="dots/Dot-v0", module=("dots",), image_size=32, workers=1, agent="random", episodes=8, out=tmp_path / "f"
    )
    ingest((tmp_path / "f",), out=tmp_path / "store", short_side=32, workers=1)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    save_encoder(encoder, tmp_path / "encoder", extra={"method": "none", "step": 0, "data": []})
    argv = ["regress", str(tmp_path / "encoder"), "--store", str(tmp_path / "store"), "--bootstrap", "100"]
    argv += ["--random-seeds", "1", "--split", "None"]
    code, seen = on_a_terminal(argv)
    assert code == 0, seen
    assert "pooled pixels" in seen and "---" not in seen and "| " not in seen
    assert main(argv) == 0
    assert "| pooled pixels | " in capsys.readouterr().out
    torch.manual_seed(1)
    save_encoder(build_encoder(encoder.config), tmp_path / "public", extra={"method": "none", "step": 0, "data": []})
    assert main([*argv, "--against", str(tmp_path / "public")]) == 0
    title, _, own, other, *_ = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert title.endswith("| minus public |")
    own_difference, other_difference = (line.split("|")[-2].strip() for line in (own, other))
    assert own_difference[0] in "+-"
    assert other_difference == "", "it is not compared with itself"


def test_sources_without_the_column_are_left_out_and_counted(tmp_path: Path) -> None:
    collect(
        env="dots/Dot-v0", module=("dots",), image_size=32, workers=1, agent="random", episodes=8, out=tmp_path / "f"
    )
    ingest((tmp_path / "f",), out=tmp_path / "store", short_side=32, workers=1)
    alone = open_probe(open_store(tmp_path / "store"), StateSettings(split=None))
    for episode in range(3):
        folder = tmp_path / "plain" / f"ep_{episode}"
        folder.mkdir(parents=True)
        for number in range(4):
            frame = np.random.default_rng(10 * episode + number).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(frame).save(folder / f"{number:05d}.png")
    ingest((tmp_path / "plain",), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    assert len(store.episode_start) - 1 == 11
    both = open_probe(store, StateSettings(split=None))
    assert (alone.num_without, both.num_without) == (0, 3)
    assert np.array_equal(np.sort(both.values, axis=0), np.sort(alone.values, axis=0))
    with pytest.raises(InputError, match=r"no source of .* has it"):
        open_probe(store, StateSettings(split=None, column="absent"))
