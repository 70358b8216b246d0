"""Scores on the shipped clips: splits, tasks, features, scores, tables and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from places import CLIPS
from rich.console import Console

import robossl
from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.evaluation.protocol import Predictions
from robossl.evaluation.result import Result, Scores, read_evaluation
from robossl.evaluation.run import EvaluationSettings, run_evaluation
from robossl.evaluation.score import Candidate, FrameRows, score_task
from robossl.evaluation.splits import Splits, group_names, grouped_splits, store_splits
from robossl.evaluation.table import print_tables, to_markdown
from robossl.evaluation.task import LabelTask, check_usable, make_task
from robossl.measure.features import embed
from robossl.measure.store_rows import StoreRows, spread_rows
from robossl.measure.subjects import Subject, pixels_reference
from robossl.measure.subjects.references import MAJORITY
from robossl.measure.subjects.subject import SubjectInfo


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained encoder where a run would have left its own."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone="resnet18", input_hw=(32, 32), zero_init_last=False))
    save_encoder(encoder, run / "encoder", extra={"method": "simsiam", "step": 1, "data": []})
    return run


@pytest.fixture(scope="session")
def stills(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six stills of each clip as a store of images, which has enough episodes of every scene for intervals."""
    clips, folder = open_store(clip_store_path), tmp_path_factory.mktemp("stills")
    table = ["path,scene,clip"]
    for row in spread_rows(clips, np.arange(clips.num_episodes), per_episode=6):
        episode = clips.episode_of(np.array([row]))[0]
        (folder / f"{row}.jpg").write_bytes(clips.jpeg(int(row)).tobytes())
        table.append(f"{row}.jpg,{clips.labels('scene')[episode]},{episode}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    out = folder.with_name("stills_store")
    ingest((folder,), out=out, short_side=64, workers=1)
    return open_store(out)


def halves(store: Store) -> Splits:
    """Every other episode, so that several classes have two episodes on both sides."""
    order = np.argsort(store.labels("scene"), kind="stable")
    return Splits("train", np.sort(order[::2]), {"test": np.sort(order[1::2])})


@pytest.fixture
def task(clip_store: Store) -> LabelTask:
    made = make_task(clip_store, "lab", halves(clip_store), "test", min_episodes=1)
    assert made.is_usable
    return made


# Splits and tasks


def test_store_splits_are_the_stores(clip_store: Store) -> None:
    splits = store_splits(clip_store, train="train", test=("val",))
    assert set(clip_store.episode_split[splits.train]) == {"train"}
    assert set(clip_store.episode_split[splits.tests["val"]]) == {"val"}
    assert len(splits.train) + len(splits.tests["val"]) == clip_store.num_episodes


def test_a_split_cannot_be_trained_and_tested_on(clip_store: Store) -> None:
    with pytest.raises(InputError, match="cannot be trained and tested"):
        store_splits(clip_store, train="train", test=("val", "train"))


@pytest.mark.parametrize("by", ["episode", "lab", "day", "camera"])
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_on_both_sides(clip_store: Store, by: str, seed: int) -> None:
    splits = grouped_splits(clip_store, by=by, test_fraction=0.3, seed=seed)
    groups = group_names(clip_store, by)
    assert not set(groups[splits.train]) & set(groups[splits.tests["test"]])
    everything = np.sort(np.concatenate([splits.train, splits.tests["test"]]))
    np.testing.assert_array_equal(everything, np.arange(clip_store.num_episodes))
    assert len(splits.train)
    assert len(splits.tests["test"])


def test_grouped_splits_follow_the_seed(clip_store: Store) -> None:
    tests = [
        tuple(grouped_splits(clip_store, by="episode", test_fraction=0.5, seed=s).tests["test"]) for s in (0, 0, 1)
    ]
    assert tests[0] == tests[1] != tests[2]
    assert len(tests[0]) == clip_store.num_episodes // 2


def test_a_label_of_one_value_cannot_split(tmp_path: Path) -> None:
    clips = CLIPS
    ingest([clips], out=tmp_path / "store", short_side=16, label_columns=("width",))
    with pytest.raises(InputError, match="two are needed"):
        grouped_splits(open_store(tmp_path / "store"), by="width", test_fraction=0.5, seed=0)


def test_an_unknown_label_names_the_nearest(clip_store: Store) -> None:
    with pytest.raises(InputError, match="'scene'"):
        make_task(clip_store, "scenes", halves(clip_store), "test", min_episodes=1)


def test_classes_need_enough_episodes_in_both_splits(clip_store: Store) -> None:
    splits = store_splits(clip_store, train="train", test=("val",))
    task = make_task(clip_store, "lab", splits, "val", min_episodes=2)
    labs, split = clip_store.labels("lab"), clip_store.episode_split
    for count in task.classes + task.dropped:
        assert count.train == ((labs == count.name) & (split == "train")).sum()
        assert count.test == ((labs == count.name) & (split == "val")).sum()
    assert all(min(count.train, count.test) >= 2 for count in task.classes)
    assert all(min(count.train, count.test) < 2 for count in task.dropped)
    assert [task.classes[i].name for i in task.test_labels] == list(labs[task.test])


def test_nothing_usable_is_refused_with_counts_and_a_remedy(clip_store: Store) -> None:
    splits = store_splits(clip_store, train="train", test=("val",))
    task = make_task(clip_store, "scene", splits, "val", min_episodes=5)
    with pytest.raises(InputError, match=r"Kitchen 3 train / 1 test.*lower --min-episodes"):
        check_usable([task], min_episodes=5)
    with pytest.raises(InputError, match=r"draw another split \(--seed, --test-fraction\)"):
        check_usable([task], min_episodes=5, split_by="episode")


# Features


def test_rows_are_spread_within_each_episode(clip_store: Store) -> None:
    rows = spread_rows(clip_store, np.array([2, 5]), per_episode=4)
    assert list(clip_store.episode_of(rows)) == [2] * 4 + [5] * 4
    start, stop = clip_store.episode_start[2:4]
    np.testing.assert_allclose(
        (rows[:4] - start) / (stop - start), [1 / 8, 3 / 8, 5 / 8, 7 / 8], atol=1 / (stop - start)
    )


def test_a_short_episode_gives_what_it_has(clip_store: Store) -> None:
    rows = spread_rows(clip_store, np.array([3]), per_episode=10_000)
    np.testing.assert_array_equal(rows, np.arange(*clip_store.episode_start[3:5]))


def subject_of(embed_frames: Callable[[np.ndarray], np.ndarray], *, name: str = "mean", digest: str = "a") -> Subject:
    info = SubjectInfo(name, name, "onnx", digest, "mean", 3, "float32", "none")
    return Subject(info, digest, lambda frames: {"pooled": embed_frames(frames)}, ("pooled",))


def embed_rows(subject: Subject, store: Store, rows: np.ndarray, *, cache: Path | None = None) -> np.ndarray:
    return np.asarray(embed(subject, StoreRows(store, rows), cache=cache)["pooled"])


def test_frames_of_mixed_sizes_keep_their_order() -> None:
    class MixedFrames:
        digest = "mixed"

        def __len__(self) -> int:
            return 3

        def read(self, start: int, stop: int) -> list[np.ndarray]:
            sizes = enumerate([(4, 6), (8, 2), (4, 6)])
            return [np.full((*size, 3), value, np.uint8) for value, size in sizes][start:stop]

    mean = subject_of(lambda batch: batch.mean(axis=(1, 2)))
    np.testing.assert_array_equal(embed(mean, MixedFrames())["pooled"][:, 0], [0, 1, 2])


def test_features_are_kept_by_subject_and_rows(clip_store: Store, tmp_path: Path) -> None:
    calls = []

    def embed_frames(frames: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        return frames.mean(axis=(1, 2))

    rows = np.array([0, 70, 700])
    first = embed_rows(subject_of(embed_frames), clip_store, rows, cache=tmp_path)
    again = embed_rows(subject_of(embed_frames), clip_store, rows, cache=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert sum(calls) == 3
    embed_rows(subject_of(embed_frames, digest="another"), clip_store, rows, cache=tmp_path)
    embed_rows(subject_of(embed_frames), clip_store, rows[:2], cache=tmp_path)
    assert sum(calls) == 3 + 3 + 2
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_features_of_other_code_are_made_again(
    clip_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_rows(pixels_reference(), clip_store, np.array([0]), cache=tmp_path)
    monkeypatch.setattr("robossl.measure.features._code_digest", lambda: "another encoder.py")
    embed_rows(pixels_reference(), clip_store, np.array([0]), cache=tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 2


@pytest.mark.parametrize("left", [0, 40])
def test_a_damaged_file_of_features_is_made_again(left: int, clip_store: Store, tmp_path: Path) -> None:
    first = embed_rows(pixels_reference(), clip_store, np.array([0, 70]), cache=tmp_path)
    (kept,) = tmp_path.rglob("*.npy")
    whole = kept.read_bytes()
    for damaged in (whole[:left], whole[:-1]):
        kept.write_bytes(damaged)
        again = embed_rows(pixels_reference(), clip_store, np.array([0, 70]), cache=tmp_path)
        np.testing.assert_array_equal(first, again)
        assert kept.stat().st_size == len(whole)
    assert list(tmp_path.rglob("*.npy")) == [kept]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_and_not_kept(value: float, clip_store: Store, tmp_path: Path) -> None:
    diverged = subject_of(lambda frames: np.full((len(frames), 4), value, np.float32), name="runs/diverged")
    with pytest.raises(InputError, match="runs/diverged: pooled holds nan or infinity for 1 of 1 frames"):
        embed_rows(diverged, clip_store, np.array([0]), cache=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_cache_that_cannot_be_written_is_refused_before_the_work(clip_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    unused = subject_of(lambda frames: pytest.fail("embedded"))
    for cache in (file, file / "folder"):
        with pytest.raises(InputError, match=f"cannot write to {cache} .*--cache"):
            embed_rows(unused, clip_store, np.array([0]), cache=cache)


# Scores


def oracle(frames: FrameRows, task: LabelTask, wrong: tuple[int, ...] = ()) -> np.ndarray:
    """One-hot classes as features, false for the named test episodes."""
    labels = np.zeros(frames.episodes.max() + 1, dtype=np.int64)
    labels[task.train], labels[task.test] = task.train_labels, task.test_labels
    for episode in wrong:
        labels[episode] = (labels[episode] + 1) % len(task.classes)
    return np.eye(len(task.classes), dtype=np.float32)[labels[frames.episodes]]


def read_off(train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray, *, seed: int) -> Predictions:
    """A protocol for features that are scores already."""
    assert (train.argmax(axis=1) == labels).all()
    return Predictions(test.astype(np.float64), {})


def test_scores_count_episodes_and_pair_references(clip_store: Store, task: LabelTask) -> None:
    episodes = np.sort(np.concatenate([task.train, task.test]))
    frames = FrameRows.of(clip_store, episodes, per_episode=2)
    wrong = int(task.test[0])
    candidates = [
        Candidate("perfect", "encoder", (oracle(frames, task),), ("one wrong", MAJORITY)),
        Candidate("one wrong", "pixels", (oracle(frames, task, (wrong,)),)),
        Candidate("half", "random", (oracle(frames, task), oracle(frames, task, (wrong,)))),
    ]
    result = score_task(task, frames, candidates, read_off, protocol_name="read", num_resamples=200, seed=0)
    perfect, one_wrong, half, majority = result.rows
    lost = 1 / (task.test_labels == task.test_labels[0]).sum() / len(task.classes)
    assert perfect.accuracy.estimate == 1
    assert one_wrong.accuracy.estimate == pytest.approx(1 - lost)
    assert half.accuracy.estimate == pytest.approx(1 - lost / 2)
    assert majority.accuracy.estimate == pytest.approx(1 / len(task.classes))
    assert perfect.minus["one wrong"].estimate == pytest.approx(lost)
    assert perfect.minus[MAJORITY].estimate == pytest.approx(1 - 1 / len(task.classes))
    assert [details["balanced_accuracy"] for details in half.details] == pytest.approx([1, 1 - lost])
    assert result.num_test_frames == 2 * len(task.test)


def test_frames_are_averaged_to_the_episode(clip_store: Store, task: LabelTask) -> None:
    """Of three frames one is surely wrong, two are hardly right: the mean is wrong, 2/3 of the frames are right."""
    episodes = np.sort(np.concatenate([task.train, task.test]))
    frames = FrameRows.of(clip_store, episodes, per_episode=3)
    truth = oracle(frames, task)
    other = np.roll(truth, 1, axis=1)
    is_test, is_first = np.isin(frames.episodes, task.test), np.arange(len(truth)) % 3 == 0
    scores = np.where(is_first[:, None], other, 0.6 * truth + 0.4 * other)
    scores = np.where(is_test[:, None], scores, truth)
    candidate = Candidate("torn", "encoder", (scores.astype(np.float32),))
    row = score_task(task, frames, [candidate], read_off, protocol_name="read", num_resamples=100, seed=0).rows[0]
    assert row.accuracy.estimate == 0
    assert row.frame_accuracy.estimate == pytest.approx(2 / 3)


# The whole


@pytest.fixture(scope="session")
def settings() -> EvaluationSettings:
    return EvaluationSettings(
        label=("scene",),
        protocol=("knn", "linear"),
        split_by="clip",
        test_fraction=0.4,
        frames_per_episode=2,
        min_episodes=5,
        bootstrap=100,
        random_seeds=2,
    )


@pytest.fixture(scope="session")
def evaluation(stills: Store, run_folder: Path, settings: EvaluationSettings) -> Scores:
    return run_evaluation((str(run_folder),), stills, settings, cache=run_folder / "features")


def test_every_row_and_reference_is_there(evaluation: Scores) -> None:
    assert evaluation.results
    assert {result.protocol for result in evaluation.results} == {"knn", "linear"}
    for result in evaluation.results:
        assert [row.kind for row in result.rows] == ["encoder", "random", "pixels", "majority"]
        assert list(result.rows[0].minus) == ["random resnet18", "pooled pixels", MAJORITY]
        assert len(result.rows[1].details) == 2
        assert len(result.sentences()) == 3
        assert result.rows[0].accuracy.is_defined


def test_it_is_the_same_twice(
    evaluation: Scores, stills: Store, run_folder: Path, settings: EvaluationSettings
) -> None:
    again = run_evaluation((str(run_folder),), stills, settings)
    assert again.results == evaluation.results


def test_json_reads_back(evaluation: Scores, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation.to_json())
    assert read_evaluation(path).results == evaluation.results
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["schema"] == "robossl.evaluation/1"
    assert content["about"]["store"]["content_hash"]
    assert content["results"][0]["sentences"]
    path.write_text(json.dumps(content | {"schema": "robossl.evaluation/9"}))
    with pytest.raises(InputError, match=r"robossl\.evaluation/9"):
        read_evaluation(path)


def undefined(store: Store) -> Result:
    splits = store_splits(store, train="train", test=("val",))
    task = make_task(store, "scene", splits, "val", min_episodes=1)
    frames = FrameRows.of(store, np.arange(store.num_episodes), per_episode=1)
    features = embed_rows(pixels_reference(), store, frames.rows)
    candidates = [Candidate("pixels", "encoder", (features,), (MAJORITY,))]
    return score_task(task, frames, candidates, _nearest_mean, protocol_name="mean", num_resamples=100, seed=0)


def _nearest_mean(
    train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray, *, seed: int
) -> Predictions:
    means = np.stack([train[labels == c].mean(axis=0) for c in np.unique(labels)])
    return Predictions(-np.linalg.norm(test[:, None] - means, axis=2), {})


def test_single_episodes_give_no_interval_and_no_claim(clip_store: Store, tmp_path: Path) -> None:
    result = undefined(clip_store)
    assert not result.rows[0].accuracy.is_defined
    assert result.sentences()[0].endswith(", which shows nothing.")
    path = tmp_path / "evaluation.json"
    path.write_text(Scores({}, (result,), ()).to_json())
    json.loads(path.read_text(), parse_constant=pytest.fail)  # nan is not JSON
    assert not read_evaluation(path).results[0].rows[0].accuracy.is_defined
    assert "no interval, as there are fewer than 5 episodes" in to_markdown(read_evaluation(path))
    assert to_markdown(read_evaluation(path)).count("no interval") == 1
    assert "differences were tested" not in to_markdown(read_evaluation(path))  # without intervals, nothing is


def test_tables_fit_eighty_columns_and_say_everything(evaluation: Scores) -> None:
    text = StringIO()
    print_tables(evaluation, Console(file=text, width=80))
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for row in evaluation.results[0].rows:
        assert row.name in shown
        assert row.name in to_markdown(evaluation)
    assert "dropped" in shown


def test_the_command_measures_and_writes(
    run_folder: Path, clip_store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--label", "scene", "--min-episodes", "1", "--frames-per-episode", "2", "--random-seeds", "1"]
    assert main(["evaluate", str(run_folder), "--store", str(clip_store_path), *arguments, "--markdown"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("**knn: scene on val: 5 classes, 5 episodes (11 to train on)**")
    written = read_evaluation(run_folder / "evaluation.json")
    assert written.about["command"].startswith(f"robossl evaluate {run_folder} --store")
    assert written.about["settings"]["frames_per_episode"] == 2
    assert written.about["encoders"][0]["method"] == "simsiam"


def test_a_named_encoder_is_one_more_reference(run_folder: Path, clip_store_path: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    save_encoder(encoder, tmp_path / "public", extra={"method": "none", "step": 0, "data": []})
    options = {"label": "scene", "min_episodes": 1, "frames_per_episode": 2, "random_seeds": 1, "bootstrap": 100}
    scores = robossl.evaluate(run_folder, store=clip_store_path, against=tmp_path / "public", out=None, **options)
    rows = {row.name: row for row in scores.results[0].rows}
    assert list(rows[run_folder.name].minus)[-1] == "public"
    assert "public" not in rows["public"].minus
    assert "--against" in scores.about["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "lists them); without labels: robossl probe run "),
        (["--label", "scnee"], "did you mean 'scene'"),
        (["--label", "scene", "--test", "vall"], "did you mean 'val'"),
        (["--label", "scene", "--protocol", "kn"], "did you mean 'knn'"),
        (["--label", "scene"], "lower --min-episodes"),
        (
            ["--label", "scene", "--split-by", "robot"],
            "unknown group 'robot'; did you mean 'object'? choose from episode, day, lab,",
        ),
        (["--label", "scene", "--frames-per-episode", "0"], "frames_per_episode must be at least 1"),
        (["--label", "scene", "--test-fraction", "1"], "test_fraction must lie between 0 and 1"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, run_folder: Path, clip_store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_folder), "--store", str(clip_store_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_encoder_is_named(
    tmp_path: Path, clip_store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--store", str(clip_store_path), "--label", "scene", "--min-episodes", "1"]
    assert main(["evaluate", str(tmp_path), *arguments]) == 2
    assert str(tmp_path) in capsys.readouterr().err
