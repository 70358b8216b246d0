"""Folders of numbered frames are episodes, classes of numbered photographs are not, and either can be asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.errors import InputError


def level(path: Path, value: int, hw: tuple[int, int] = (32, 40)) -> None:
    """A grey picture; neighbours in a recording differ by little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*hw, 3), value, np.uint8)).save(path)


def photograph(path: Path, seed: int, hw: tuple[int, int] = (32, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(blocks).resize(hw[::-1], Image.Resampling.NEAREST).save(path)


def episodes(root: Path, out: Path, **options: object) -> dict[str, list[tuple[float, int]]]:
    """Of each stored episode the times and the grey levels of its frames."""
    ingest([root], out=out, short_side=32, quality=100, workers=1, **options)
    store = open_store(out)
    found = {}
    for number, name in enumerate(store.episode_id):
        rows = np.arange(store.episode_start[number], store.episode_start[number + 1])
        levels = [round(float(frame.float().mean())) for frame in store.decode(rows)]
        times = store.time_seconds[rows].round(6).tolist()
        found[str(name).removeprefix(f"{root.name}/")] = list(zip(times, levels, strict=True))
    return found


def ramp(numbers: range, fps: float = 10) -> list[tuple[float, int]]:
    """Frames `number` of grey level 10 + 4 * number."""
    return [(round((number - numbers[0]) / fps, 6), 10 + 4 * number) for number in numbers]


@pytest.mark.parametrize(
    "name", ["{:05d}.jpg", "{}.png", "frame_{:06d}.png", "frame-{:06d}.color.jpg", "img{}.bmp", "cam 1 {:03d}.jpeg"]
)
@pytest.mark.parametrize("folder", ["ep_0", "bear", "0007", "train/pick up/12"])
def test_numbered_frames_are_an_episode_in_the_order_of_their_numbers(name: str, folder: str, tmp_path: Path) -> None:
    for number in range(12):  # without padding, 10 sorts before 2
        level(tmp_path / "in" / folder / name.format(number), 10 + 4 * number)
    assert episodes(tmp_path / "in", tmp_path / "out") == {folder: ramp(range(12))}
    store = open_store(tmp_path / "out")
    is_train = folder.startswith("train")
    assert store.episode_split.tolist() == ["train" if is_train else ""]
    assert store.label_names == (("label",) if is_train else ())


def test_a_folder_of_frames_itself_can_be_the_source(tmp_path: Path) -> None:
    for number in range(6):
        level(tmp_path / "ep_3" / f"{number}.jpg", 10 + 4 * number)
    assert episodes(tmp_path / "ep_3", tmp_path / "out", image_fps=30) == {"ep_3": ramp(range(6), 30)}


def test_numbered_images_right_in_the_source_are_said_and_stay_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        level(tmp_path / "images" / f"{number}.jpg", 10 + 4 * number)
    assert len(episodes(tmp_path / "images", tmp_path / "out")) == 6
    assert "are not in a subfolder (--image-folders episodes" in capsys.readouterr().out
    assert episodes(tmp_path / "images", tmp_path / "asked", image_folders="episodes") == {"images": ramp(range(6))}


def test_a_gap_keeps_its_time_and_is_noted_and_a_step_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in [0, 1, 2, 6, 7]:
        level(tmp_path / "in" / "ep_0" / f"{number:04d}.jpg", 10 + 4 * number)
    for number in range(100, 160, 10):
        level(tmp_path / "in" / "ep_1" / f"{number:04d}.jpg", number)
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert found["ep_0"] == [(0.0, 10), (0.1, 14), (0.2, 18), (0.6, 34), (0.7, 38)]
    assert found["ep_1"] == [(round(k / 10, 6), 100 + 10 * k) for k in range(6)]
    said = capsys.readouterr().out
    assert "noted in/ep_0: 3 frame numbers missing" in said and "in/ep_1" not in said
    assert "2 episodes of 11 frames in all (ep_0, ...) at 10 frames/s (--image-fps" in said


def test_two_cameras_in_one_folder_are_two_episodes(tmp_path: Path) -> None:
    for number in range(5):
        for place, side in enumerate(("left", "right")):
            level(tmp_path / "in" / "ep_0" / f"{side}_{number}.png", 10 + 4 * number + 100 * place)
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert found == {"ep_0/left": ramp(range(5)), "ep_0/right": [(time, n + 100) for time, n in ramp(range(5))]}


@pytest.mark.parametrize(
    "name", ["{:05d}.png", "apple_{:03d}.png", "{}.png"], ids=["padded", "with the class", "plain"]
)
@pytest.mark.parametrize("folder", ["n01440764", "apple", "7", "train/apple"])
def test_classes_of_numbered_photographs_stay_images(
    name: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        photograph(tmp_path / "in" / folder / name.format(number), number)
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert sorted(found) == sorted(f"{folder}/{name.format(number)}" for number in range(8))
    assert set(open_store(tmp_path / "out").labels("label")) == {folder.removeprefix("train/")}
    said = capsys.readouterr().out
    assert f"numbered images of 1 folder ({folder}, ...) are read one by one" in said
    assert "--image-folders episodes" in said


def test_numbers_that_are_names_and_sizes_that_differ_make_no_episode(tmp_path: Path) -> None:
    for number in (31, 4711, 90210, 123456, 7):
        level(tmp_path / "in" / "cup" / f"{number}.png", number % 200)
    for number in range(5):
        level(tmp_path / "in" / "mug" / f"{number}.png", 100 + number, (32 + number, 40))
    assert len(episodes(tmp_path / "in", tmp_path / "out")) == 10


def test_either_can_be_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for number in range(8):
        level(root / "ep_0" / f"{number}.png", 10 + 4 * number)
        photograph(root / "apple" / f"{number}.png", number)
    level(root / "ep_0" / "cover.png", 250)
    assert len(episodes(root, tmp_path / "auto")) == 1 + 8 + 1
    assert set(episodes(root, tmp_path / "episodes", image_folders="episodes")) == {"ep_0", "ep_0/cover.png", "apple"}
    assert len(episodes(root, tmp_path / "images", image_folders="images")) == 17
    argv = ["ingest", str(root), "--out", str(tmp_path / "cli"), "--workers", "1", "--image-folders", "images"]
    assert main(argv) == 0
    assert open_store(tmp_path / "cli").num_episodes == 17
    with pytest.raises(InputError, match="image_fps must be a positive number, got 0"):
        ingest([root], out=tmp_path / "never", image_fps=0)
    assert not (tmp_path / "never").exists()


def test_images_that_a_csv_lists_one_by_one_keep_their_labels(tmp_path: Path) -> None:
    for number in range(6):
        level(tmp_path / "in" / "ep_0" / f"{number}.png", 10 + 4 * number)
        level(tmp_path / "in" / "ep_1" / f"{number}.png", 100 + 4 * number)
    lines = [f"ep_0/{number}.png,{'open' if number < 3 else 'closed'}" for number in range(6)]
    (tmp_path / "in" / "labels.csv").write_text("\n".join(["path,gripper", *lines]) + "\n")
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert len(found) == 7 and len(found["ep_1"]) == 6
    assert open_store(tmp_path / "out").labels("gripper").tolist() == ["open"] * 3 + ["closed"] * 3 + [""]


def test_a_csv_may_label_episodes_of_images(tmp_path: Path) -> None:
    for episode in range(2):
        for number in range(6):
            level(tmp_path / "in" / f"ep_{episode}" / f"{number}.png", 100 * episode + 4 * number)
    (tmp_path / "in" / "labels.csv").write_text("path,split,verb\nep_0,train,lift\nep_1,val,push\n")
    episodes(tmp_path / "in", tmp_path / "out")
    store = open_store(tmp_path / "out")
    assert store.labels("verb").tolist() == ["lift", "push"] and store.episode_split.tolist() == ["train", "val"]


@pytest.mark.parametrize("damage", ["cut", "size"])
def test_a_damaged_frame_is_named_and_costs_its_episode(damage: str, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for episode in range(2):
        for number in range(6):
            level(root / f"ep_{episode}" / f"{number}.png", 100 * episode + 4 * number)
    path = root / "ep_0" / "3.png"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    else:
        level(path, 3, (40, 40))
    manifest = ingest([root], out=tmp_path / "out", short_side=32, workers=1).manifest
    (skipped,) = manifest.sources[0].skipped
    assert manifest.num_episodes == 1 and skipped.path == "ep_0" and skipped.reason.startswith("3.png")


def test_a_changed_frame_is_read_again(tmp_path: Path) -> None:
    for number in range(6):
        level(tmp_path / "in" / "ep_0" / f"{number}.png", 10 + 4 * number)
    episodes(tmp_path / "in", tmp_path / "out")
    level(tmp_path / "in" / "ep_0" / "3.png", 200)
    assert episodes(tmp_path / "in", tmp_path / "out")["ep_0"][3] == (0.3, 200)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("frame{n}_cam{c}.png", ["ep_0/frame_cam0", "ep_0/frame_cam1"]),
        ("cam{c}_frame{n}_v2.png", ["ep_0/cam0_frame_v2", "ep_0/cam1_frame_v2"]),
    ],
)
def test_of_several_numbers_the_one_that_takes_most_values_counts(name: str, keys: list[str], tmp_path: Path) -> None:
    for number in range(12):
        for camera in (0, 1):
            level(tmp_path / "in/ep_0" / name.format(n=number, c=camera), 10 + 4 * number + 100 * camera)
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert len(found) == 2
    assert list(found.values()) == [ramp(range(12)), [(t, value + 100) for t, value in ramp(range(12))]]
    assert list(found) == keys


def test_names_that_are_seconds_are_one_episode(tmp_path: Path) -> None:
    for number in range(12):
        level(tmp_path / "in/ep_0" / f"{1305031102 + number * 0.25:.6f}.png", 10 + 4 * number)
    assert episodes(tmp_path / "in", tmp_path / "out") == {"ep_0": ramp(range(12))}


def test_frames_stored_in_two_formats_are_one_episode_and_two_formats_of_each_are_two(tmp_path: Path) -> None:
    for number in range(12):
        level(tmp_path / "in/ep_0" / f"{number}.{'png' if number % 3 else 'jpg'}", 10 + 4 * number)
        level(tmp_path / "in/ep_1" / f"{number}.png", 60 + 4 * number)
        level(tmp_path / "in/ep_1" / f"{number}.jpg", 110 + 4 * number)
    png, jpg = ([(t, value + more) for t, value in ramp(range(12))] for more in (50, 100))
    found = episodes(tmp_path / "in", tmp_path / "out")
    assert found == {"ep_0": ramp(range(12)), "ep_1/jpg": jpg, "ep_1/png": png}


@pytest.mark.parametrize("names", [[str(1700000000000 + 33 * k + k % 3) for k in range(6)], list("abcdef")])
def test_a_folder_named_like_an_episode_that_is_none_is_said(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(names):
        level(tmp_path / "in/ep_0" / f"{name}.png", 10 + 4 * number)
    assert len(episodes(tmp_path / "in", tmp_path / "out")) == 6
    assert "images of 1 folder named like episodes (ep_0, ...) are read one by one" in capsys.readouterr().out
