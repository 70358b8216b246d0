"""`robossl temporal`: features of known order get the known scores, and what cannot work is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from robossl.cli.main import main
from robossl.data.store import Store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.evaluation.temporal import SCHEMA
from robossl.evaluation.temporal_probe import TemporalSettings, run_temporal, score_episodes

OF = np.repeat(np.arange(6), 20)
TIME = np.tile(np.arange(20.0), 6)
PARTNERS = {episode: ((episode + 1) % 6, (episode + 2) % 6) for episode in range(6)}


def scores(features: np.ndarray) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in score_episodes(features, OF, PARTNERS).items()}


def test_features_that_move_with_time_are_in_order_and_can_be_aligned() -> None:
    straight = np.stack([TIME, 0.001 * OF], axis=1)
    assert scores(straight) == {"progress": pytest.approx(1), "alignment": pytest.approx(1)}


def test_a_way_out_and_back_is_no_progress() -> None:
    turn = np.abs(TIME - 9.5)[:, None]
    assert scores(turn)["progress"] == pytest.approx(0, abs=0.15)


def test_episodes_far_from_each_other_cannot_be_aligned_by_their_distance() -> None:
    apart = (TIME + 1000 * OF)[:, None]  # the nearest frame of another episode is its first or its last
    assert scores(apart) == {"progress": pytest.approx(1), "alignment": 0.0}


def test_constant_and_random_features_have_no_order() -> None:
    assert scores(np.ones((120, 3))) == {"progress": 0.0, "alignment": 0.0}
    noise = scores(np.random.default_rng(0).normal(size=(120, 32)))
    assert all(abs(value) < 0.2 for value in noise.values())


def test_without_partners_there_is_no_alignment() -> None:
    assert set(score_episodes(TIME[:, None], OF, {})) == {"progress"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("temporal") / "encoder"
    save_encoder(
        build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32))), folder, extra={"method": "none", "step": 0}
    )
    return folder


def test_the_table_and_json_name_both_scores(
    encoder: Path, clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["temporal", str(encoder), "--store", str(clip_store_path), "--label", "verb", "--bootstrap", "100"]
    argv += ["--random-seeds", "2", "--frames-per-episode", "8", "--out", str(tmp_path / "t.json")]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "| progress | minus random test_resnet | minus pooled pixels | alignment |" in said
    assert re.search(r"pooled pixels \| 0\.\d\d \[", said), "a fixed camera and a moving arm: pixels make progress"
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["schema"] == SCHEMA
    assert found["num_episodes"]["progress"] == 16
    assert main(argv) == 0
    assert capsys.readouterr().out == said, "equal seeds give equal scores"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TemporalSettings(frames_per_episode=3), "frames_per_episode must be 4 or more, got 3"),
        (TemporalSettings(bootstrap=0), "bootstrap must be 100 or more, got 0"),
        (TemporalSettings(label="absent"), "unknown label 'absent'"),
        (TemporalSettings(label="instruction"), "0 episodes share their instruction with another"),
        (TemporalSettings(split="absent"), "unknown split 'absent'"),
    ],
)
def test_what_cannot_work_is_one_line(
    settings: TemporalSettings, message: str, encoder: Path, clip_store: Store
) -> None:
    with pytest.raises(InputError, match=message):
        run_temporal((str(encoder),), clip_store, settings)
