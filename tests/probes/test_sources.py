"""Sources of frames: stores, a camera with poses, environments; what their labels say is what the pixels show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import CLIPS
from robossl_envs.factors import FACTORS as SCENE_FACTORS
from robossl_envs.probe_frames import EnvFrames

from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.errors import InputError
from robossl.probes.factors import FACTORS, resolve_factor
from robossl.probes.frames import Split, ViewUnavailableError
from robossl.probes.label_maps import move_label
from robossl.probes.moves import to_view
from robossl.probes.sources import open_frames
from robossl.probes.sources.store import StoreProbeFrames
from robossl.probes.views import RenderJob, Views

SCENE = [name for name, target in FACTORS.items() if ".scene:" in target]
NUM = 24


@pytest.fixture(scope="module")
def push() -> EnvFrames:
    return EnvFrames("robossl/Push-v0", num_scenes=NUM, image_size=64)


def test_frames_of_an_episode_are_a_second_apart_and_have_a_past(clip_store: Store) -> None:
    frames = StoreProbeFrames(clip_store)
    assert frames.cluster_key == "episode" and len(set(frames.clusters)) == clip_store.num_episodes
    times = clip_store.time_seconds[frames._rows]
    same = np.diff(frames.clusters) == 0
    assert same.sum() > 20 and np.diff(times)[same].min() > 0.999
    assert (frames._rows - clip_store.episode_start[frames.clusters] >= 8).all()
    assert (StoreProbeFrames(clip_store).digest, StoreProbeFrames(clip_store, seed=1).digest) != (frames.digest,) * 2


def test_frames_before_are_those_that_the_camera_gave(clip_store: Store) -> None:
    frames = StoreProbeFrames(clip_store)
    at = np.arange(0, len(frames.clusters), 9)
    assert (frames.earlier(at, 0) == frames.clean(at)).all()
    rows = frames._rows[at] - 3  # no frame of these clips was dropped
    wanted = np.stack([frame.permute(1, 2, 0).numpy() for frame in clip_store.decode(rows.tolist())])
    assert (frames.earlier(at, 3) == wanted).all()


def test_a_class_of_a_store_may_be_named(clip_store: Store) -> None:
    frames = StoreProbeFrames(clip_store, columns={"class": next(iter(StoreProbeFrames(clip_store).labels))})
    assert "class" in frames.labels and frames.labels["class"].classes
    with pytest.raises(InputError, match="unknown label of classes"):
        StoreProbeFrames(clip_store, columns={"class": "nothing"})


def test_labels_of_a_store_are_classes(clip_store: Store) -> None:
    frames = StoreProbeFrames(clip_store)
    lab = frames.labels["lab"]
    assert lab.type == "class" and len(lab.classes) > 1
    texts = clip_store.labels("lab")[frames.clusters]
    assert [lab.classes[int(number)] for number in lab.values[:, 0]] == texts.tolist()


def test_the_commonest_size_is_taken_and_the_rest_is_said(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        size = (40, 60, 3) if number == 2 else (40, 40, 3)
        Image.fromarray(rng.integers(0, 255, size, np.uint8)).save(pictures / f"{number}.png")
    rows = [f"{number}.png,thing {number},{'even' if number % 2 == 0 else 'odd'}" for number in range(5)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,thing,parity", *rows]))
    ingest((pictures,), out=tmp_path / "store", short_side=40, workers=1, labels=tmp_path / "labels.csv")
    frames = open_frames(str(tmp_path / "store"))
    assert frames.hw == (40, 40) and len(frames.clusters) == 4
    assert frames.notes == (
        "left out 1 of 5 frames that are not 40 x 40",
        "left out the label thing: every class is one episode, so no other episode can test it",
    )
    assert list(frames.labels) == ["parity"]
    with pytest.raises(ViewUnavailableError, match="single pictures have no past"):
        frames.earlier(np.arange(2), 1)
    with pytest.raises(ViewUnavailableError, match="recorded scenes cannot be changed"):
        frames.scene(np.arange(2), "distractors", 1)


def test_a_column_can_be_a_label(tmp_path: Path) -> None:
    ingest((CLIPS.parent / "g1",), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    column, width = next(iter(store.manifest.sources[0].columns.items()))
    with pytest.raises(InputError, match=f"column '{column}' is {width} wide, a label of type 'pose' is 7"):
        StoreProbeFrames(store, columns={"pose": column})
    with pytest.raises(InputError, match="column 'nothing' is needed"):
        StoreProbeFrames(store, columns={"pose": "nothing"})


@pytest.fixture
def sequence(tmp_path: Path, clip_store: Store) -> Path:
    """Forty real frames at 20 Hz with a made-up pose each, the last one's missing."""
    (tmp_path / "rgb").mkdir()
    rgb, truth = ["# timestamp filename"], ["# timestamp tx ty tz qx qy qz qw"]
    for number, frame in enumerate(clip_store.decode(range(40))):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / "rgb" / f"{number}.png")
        rgb.append(f"{number / 20:.6f} rgb/{number}.png")
        if number < 39:
            truth.append(f"{number / 20 + 0.004:.6f} {number} 0 1 0 0 0 1")
    (tmp_path / "rgb.txt").write_text("\n".join(rgb))
    (tmp_path / "groundtruth.txt").write_text("\n".join(truth))
    return tmp_path


def test_a_camera_s_poses_belong_to_its_frames(sequence: Path, clip_store: Store) -> None:
    frames = open_frames(str(sequence))
    pose = frames.labels["pose"]
    assert pose.type == "pose" and pose.values.shape[1] == 7
    rows = pose.values[:, 0].astype(int)
    assert rows.tolist() == [k for k in range(8, 39) if k % 10 < 8]
    assert 39 not in rows
    assert frames.clusters.tolist() == (rows // 10).tolist()
    at = np.array([3, 0])
    wanted = np.stack([frame.permute(1, 2, 0).numpy() for frame in clip_store.decode(rows[at].tolist())])
    assert (frames.clean(at) == wanted).all()
    before = np.stack([frame.permute(1, 2, 0).numpy() for frame in clip_store.decode((rows[at] - 5).tolist())])
    assert (frames.earlier(at, 5) == before).all()


def test_a_broken_sequence_is_said_in_one_line(sequence: Path) -> None:
    (sequence / "rgb" / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png cannot be read: No such file"):
        open_frames(str(sequence))
    (sequence / "groundtruth.txt").write_text("0.0 1 2\n")
    with pytest.raises(InputError, match=r"every line needs 8 fields, got .0\.0 1 2."):
        open_frames(str(sequence))
    (sequence / "rgb.txt").write_bytes(b"\xff\xfe0 a.png")
    with pytest.raises(InputError, match=r"rgb\.txt is not a text file"):
        open_frames(str(sequence))


def test_the_shared_camera_sequence_has_poses(shared_data: Callable[[str], Path]) -> None:
    frames = open_frames(str(shared_data("scenes7_pose")))
    values = frames.labels["pose"].values
    assert frames.hw == (240, 320) and 500 < len(values) < 860 and len(set(frames.clusters)) > 40
    assert np.allclose(np.linalg.norm(values[:, 3:], axis=1), 1, atol=1e-4)
    assert frames.notes[0].endswith("and 67 that repeat another")
    pictures = frames.clean(np.arange(len(frames.clusters)))
    assert len({each.tobytes() for each in pictures}) == len(pictures)


@pytest.mark.parametrize("name", SCENE)
def test_a_factor_changes_the_picture_of_a_scene_and_not_its_state(name: str, push: EnvFrames) -> None:
    at = np.arange(4)
    clean = push.clean(at)
    assert (push.scene(at, name, 0) == clean).all()
    assert (push.scene(at, name, 5) != clean).any((1, 2, 3)).all()
    assert (push.scene(at[::-1], name, 5)[::-1] == push.scene(at, name, 5)).all()
    for seed in push._seeds[at].tolist():
        states = [push._play(seed, 8, {name: strength})["environment_state"] for strength in (0, 5)]
        assert (states[0] == states[1]).all()
    assert resolve_factor(name).family == "scene"


def test_scenes_have_a_past(push: EnvFrames) -> None:
    at = np.arange(6)
    assert (push.earlier(at, 0) == push.clean(at)).all()
    assert (push.earlier(at, 8) != push.clean(at)).any((1, 2, 3)).all()
    with pytest.raises(ViewUnavailableError, match="scenes are 8 steps old; 9 steps earlier"):
        push.earlier(at, 9)


def blue(pixels: np.ndarray, x: float, y: float) -> bool:
    """Whether a pixel at a place in label coordinates has the block's colour."""
    size = pixels.shape[0]
    red, _, blue_ = pixels[int((y + 1) / 2 * size), int((x + 1) / 2 * size)].astype(int)
    return bool(blue_ > red + 40)


def test_labels_of_an_environment_say_where_the_block_is_seen_and_how_it_is_turned(push: EnvFrames) -> None:
    pictures = push.clean(np.arange(NUM))
    points, angles = push.labels["point"].values, push.labels["angle"].values[:, 0]
    assert push.labels["point"].type == "point" and push.labels["angle"].type == "angle"
    stem, beyond_bar = 0.05 / 0.32, -0.055 / 0.32  # along the stem, in half views
    hits = [0, 0, 0]
    for picture, (x, y), angle in zip(pictures, points, angles, strict=True):
        sine, cosine = np.sin(angle), np.cos(angle)
        hits[0] += blue(picture, x, y)
        hits[1] += blue(picture, x + cosine * stem, y - sine * stem)
        hits[2] += blue(picture, x + cosine * beyond_bar, y - sine * beyond_bar)
    assert hits[0] >= 0.8 * NUM and hits[1] >= 0.8 * NUM and hits[2] <= 0.1 * NUM  # the arm may lie over it


def test_in_a_mirror_the_stem_is_where_the_moved_angle_says(push: EnvFrames) -> None:
    mirror = np.stack([np.diag([-1.0, 1, 1])] * NUM)
    moved = [
        move_label(push.labels[name], factor="hflip", family="geometric", to_view=mirror, hw=push.hw).label
        for name in ("point", "angle")
    ]
    assert moved[0] is not None and moved[1] is not None
    hits = 0
    for picture, (x, y), (angle,) in zip(push.clean(np.arange(NUM)), moved[0].values, moved[1].values, strict=True):
        hits += blue(picture[:, ::-1], x + np.cos(angle) * 0.05 / 0.32, y - np.sin(angle) * 0.05 / 0.32)
    assert hits >= 0.8 * NUM


def test_frames_of_another_grid_are_other_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    before = EnvFrames("robossl/Reach-v0", num_scenes=2, image_size=32).digest
    roll = SCENE_FACTORS["camera_rotation"]
    monkeypatch.setitem(SCENE_FACTORS, "camera_rotation", replace(roll, sides=((2, 4, 6, 8, 10),)))
    assert EnvFrames("robossl/Reach-v0", num_scenes=2, image_size=32).digest != before


def test_squares_have_no_angle_and_their_sides_change_in_a_mirror() -> None:
    sort = EnvFrames("robossl/Sort-v0", num_scenes=2, image_size=32)
    assert sort.labels.keys() == {"point", "class"}
    assert sort.labels["class"].mirrored == (1, 0)


@pytest.mark.parametrize("name", [name for name in SCENE if name.startswith("camera_")])
def test_a_moved_camera_sees_the_block_where_the_moved_label_says(name: str, push: EnvFrames, tmp_path: Path) -> None:
    split = Split(reference=np.arange(2), evaluation=np.arange(2, NUM))
    views = Views(push, split, tmp_path)
    job = RenderJob(name, 5, "level", "evaluation")
    moves = to_view(views, job)
    assert moves is not None
    points = push.labels["point"].values[split.evaluation]
    moved = np.einsum("nij,nj->ni", moves, np.concatenate([points, np.ones((len(points), 1))], axis=1))
    places = moved[:, :2] / moved[:, 2:]
    seen = (np.abs(places) < 0.95).all(1)
    assert seen.sum() > 10 and np.abs(places - points).max() > 0.04
    hits = [blue(picture, x, y) for picture, (x, y) in zip(views.pixels(job)[seen], places[seen], strict=True)]
    assert np.mean(hits) >= 0.75  # the arm may lie over it


def test_a_factor_of_the_scene_that_moves_no_camera_moves_no_label(push: EnvFrames, tmp_path: Path) -> None:
    views = Views(push, Split(reference=np.arange(2), evaluation=np.arange(2, 4)), tmp_path)
    assert to_view(views, RenderJob("table_texture", 3, "level", "evaluation")) is None
    assert np.allclose(push.scene_warp(np.arange(2), "table_texture", 5), np.eye(3))


def test_where_nothing_is_moved_what_is_moved_has_no_colour() -> None:
    frames = open_frames("env:robossl/Reach-v0", num_scenes=2, image_size=32)
    with pytest.raises(ViewUnavailableError, match="the factor manip_object_color has no effect in robossl/Reach-v0"):
        frames.scene(np.arange(2), "manip_object_color", 3)
    recoloured = frames.scene(np.arange(2), "receiver_object_color", 5)
    assert (recoloured != frames.clean(np.arange(2))).any()


def test_a_sorting_scene_says_on_which_side_red_belongs() -> None:
    frames = open_frames("env:robossl/Sort-v0", num_scenes=12, image_size=48)
    label = frames.labels["class"]
    assert label.classes == ("red left", "red right") and set(label.values[:, 0]) == {0.0, 1.0}
    for picture, right in zip(frames.clean(np.arange(12)).astype(int), label.values[:, 0], strict=True):
        redness = picture[..., 0] - picture[..., 2]
        sides = redness[18:30, :16].mean(), redness[18:30, -16:].mean()
        assert (sides[1] > sides[0]) == (right == 1)


def test_what_is_no_source_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown environment 'robossl/Psh-v0'; did you mean 'robossl/Push-v0'"):
        open_frames("env:robossl/Psh-v0")
    with pytest.raises(InputError, match="unknown source of frames 'emv'; did you mean 'env'"):
        open_frames("emv:robossl/Push-v0")
    with pytest.raises(InputError, match="--columns is for stores, got it with env:robossl/Push-v0; leave it out"):
        open_frames("env:robossl/Push-v0", columns={"pose": "state"})
    with pytest.raises(InputError, match="--split is for stores"):
        open_frames("env:robossl/Push-v0", split="val")
    with pytest.raises(InputError, match="at least 2 scenes of 16 pixels are needed, got 1 of 96"):
        open_frames("env:robossl/Push-v0", num_scenes=1)
