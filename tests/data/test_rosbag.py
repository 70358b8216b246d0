"""Bags of ROS 1 and of ROS 2 in SQLite, written by rosbags: the right frames and columns, and what is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from bag_kit import LATE, START, STEP, compressed, image, joints
from counters import check, picture, read_all
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from robossl.data.ingest import ingest
from robossl.data.inspection import inspect_source
from robossl.data.source import Damaged
from robossl.data.sources import detect_format, source_class
from robossl.errors import InputError

Form = Literal["bag", "db3"]
Row = tuple[str, str, int, dict[str, Any]]  # topic, type, log time, fields
SECONDS = [number / 10 for number in range(12)]
ENCODINGS = ["rgb8", "bgr8", "rgba8", "bgra8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"]


def rows(encoding: str = "rgb8", count: int = 12) -> list[Row]:
    found: list[Row] = []
    for at in range(count):
        time = START + at * STEP
        found.append(("/cam/raw ü", "sensor_msgs/msg/Image", time + LATE, image(at, time, encoding)))
        found.append(("/cam/jpeg", "sensor_msgs/msg/CompressedImage", time + LATE + 1, compressed(11 - at, 0)))
    for at in range(41):
        time = START + at * 30_000_000
        found.append(("/joint_states", "sensor_msgs/msg/JointState", time + 2, joints(at, time)))
    return sorted(found, key=lambda row: row[2])


def write(path: Path, found: list[Row], compression: str = "") -> Path:
    """Write a `.bag` of ROS 1, or a folder with a `.db3` of ROS 2."""
    is_ros1 = path.suffix == ".bag"
    types = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)
    writer: Any = Writer1(path) if is_ros1 else Writer2(path, version=9)
    if compression and is_ros1:
        writer.set_compression(Writer1.CompressionFormat[compression])
    elif compression:
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, log_time, fields in found:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            message = build(types, kind, fields)
            data = types.serialize_ros1(message, kind) if is_ros1 else types.serialize_cdr(message, kind)
            writer.write(connections[topic], log_time, data)
    return path


def build(types: Any, kind: str, fields: dict[str, Any]) -> Any:
    if "header" in fields:
        time = types.types["builtin_interfaces/msg/Time"](**fields["header"]["stamp"])
        header = types.types["std_msgs/msg/Header"]
        seq = {"seq": 0} if "seq" in header.__dataclass_fields__ else {}
        fields = fields | {"header": header(stamp=time, frame_id="cam", **seq)}
    arrays = {"data": np.uint8, "position": float, "velocity": float, "effort": float}
    for name in arrays.keys() & fields.keys():
        value = fields[name]
        fields = fields | {name: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.array(value, float)}
    return types.types[kind](**fields)


def check_recording(found: dict[str, list[Any]], name: str) -> None:
    assert list(found) == [f"{name}/cam/jpeg", f"{name}/cam/raw ü"]
    check(found[f"{name}/cam/raw ü"], list(range(12)), SECONDS)
    check(found[f"{name}/cam/jpeg"], list(range(11, -1, -1)), SECONDS)
    for at, frame in enumerate(found[f"{name}/cam/raw ü"]):
        nearest = round(at * 100 / 30)
        np.testing.assert_array_equal(frame.columns["joint_states.position"], 10 * nearest + np.arange(3))
        assert frame.columns["column_gap_seconds"] == pytest.approx(abs(at * 0.1 - nearest * 0.03), abs=1e-6)


@pytest.mark.parametrize("compression", ["", "BZ2", "LZ4"])
def test_ros1(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "two words ü.bag", rows(), compression)
    assert detect_format(path) == detect_format(tmp_path) == "rosbag"
    listing = source_class("rosbag")(path).listing()
    assert listing.columns == {"joint_states.position": 3, "column_gap_seconds": 1}
    assert not listing.skipped and not listing.notes
    check_recording(read_all(tmp_path, "rosbag"), "two words ü.bag")


@pytest.mark.parametrize("compression", ["", "LZ4"])
def test_a_ros1_bag_that_is_cut_short_is_read_up_to_the_cut(tmp_path: Path, compression: str) -> None:
    found = [
        (topic, kind, time, image(at // 2, START + at // 2 * STEP, padding=6000) if kind.endswith("/Image") else fields)
        for at, (topic, kind, time, fields) in enumerate(row for row in rows() if row[0] != "/joint_states")
    ]  # some chunks of 1 MiB
    path = write(tmp_path / "run.bag", found, compression).rename(tmp_path / "run.bag.active")
    whole = path.read_bytes()
    counts = []
    for cut in (20, len(whole) // 10, len(whole) // 4, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        frames = read_all(path, "rosbag")["run.bag.active/cam/raw ü"]
        check(frames, list(range(len(frames))), SECONDS[: len(frames)])
        note = source_class("rosbag")(path).listing().notes[0].reason
        assert note.startswith("has no index, as if cut short; the ")
        counts.append(len(frames))
    assert counts[0] == 12 and 1 <= counts[-1] < 12


@pytest.mark.parametrize("compression", ["", "FILE", "MESSAGE"])
def test_ros2_in_sqlite(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "two words ü", rows(), compression)
    assert detect_format(path) == detect_format(tmp_path) == "rosbag"
    check_recording(read_all(tmp_path, "rosbag"), "two words ü")
    check_recording(read_all(path, "rosbag"), "two words ü")


def test_ros2_without_metadata_or_definitions(tmp_path: Path) -> None:
    """As a killed recorder leaves it, and as Humble and older wrote it."""
    folder = write(tmp_path / "run", rows())
    (folder / "metadata.yaml").unlink()
    (file,) = folder.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE schema")
        database.execute("DROP TABLE message_definitions")
    database.close()
    check_recording(read_all(tmp_path, "rosbag"), "run/run.db3")
    check_recording(read_all(file, "rosbag"), "run.db3")


@pytest.mark.parametrize("form", ["bag", "db3"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_raw_images(tmp_path: Path, form: Form, encoding: str) -> None:
    path = write(tmp_path / ("a.bag" if form == "bag" else "a"), rows(encoding, 4))
    frames = read_all(path, "rosbag")[f"{path.name}/cam/raw ü"]
    check(frames, list(range(4)), SECONDS[:4])
    if "bayer" not in encoding:
        np.testing.assert_array_equal(frames[2].pixels, picture(2))


def test_times(tmp_path: Path) -> None:
    kind = "sensor_msgs/msg/Image"
    uneven = [0, 33_000_000, 34_000_000, 500_000_000, 1_500_000_000]
    path = write(tmp_path / "a.bag", [("/cam", kind, START + at, image(at, START + t)) for at, t in enumerate(uneven)])
    check(read_all(path, "rosbag")["a.bag/cam"], list(range(5)), [time / 1e9 for time in uneven])
    back = [("/cam", kind, START + at, image(at, START - (at == 3) * STEP)) for at in range(5)]
    with pytest.raises(Damaged, match=r"the time of frame 3 is 0\.100 s before that of the frame before it"):
        read_all(write(tmp_path / "b.bag", back), "rosbag")


@pytest.mark.parametrize("damage", ["cut", "smeared"])
def test_a_damaged_jpeg_is_refused(tmp_path: Path, damage: str) -> None:
    found = [row for row in rows() if row[0] == "/cam/jpeg"]
    data = found[5][3]["data"]
    found[5][3]["data"] = data[:-20] if damage == "cut" else data[:-2] + bytes(40) + data[-2:]
    why = r"corrupt frame \((Premature end of JPEG file|Corrupt JPEG data: 38 extraneous bytes before marker 0xd9)\)"
    with pytest.raises(Damaged, match=why):
        read_all(write(tmp_path / "a.bag", found), "rosbag")


def test_damage_is_named_and_the_rest_is_stored(tmp_path: Path) -> None:
    root = tmp_path / "bags"
    root.mkdir()
    whole = write(root / "good.bag", rows()).read_bytes()
    (root / "last.bag").write_bytes(whole[:-20])
    (root / "half.bag").write_bytes(whole[: len(whole) // 2])
    (root / "text.bag").write_text("hello, I am no bag")
    kinds = [("/depth", kind, time, fields) for _, kind, time, fields in rows("16UC1") if kind.endswith("/Image")]
    write(root / "depth.bag", kinds)
    write(root / "blind.bag", [row for row in rows() if row[0] == "/joint_states"])
    (half,) = write(root / "half", rows()).glob("*.db3")
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    (last,) = write(root / "last", rows()).glob("*.db3")
    last.write_bytes(last.read_bytes()[:-100])
    (write(root / "gone", rows()) / "gone.db3").unlink()
    (write(root / "cut yaml", rows()) / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  [")
    store = ingest(root, out=tmp_path / "store", workers=1)
    (source,) = store.manifest.sources
    problems = {problem.path: problem.reason for problem in source.skipped}
    assert problems["half.bag"].startswith("holds no pictures") and "magic is invalid" in problems["text.bag"]
    assert problems["depth.bag/depth"].startswith("encoding 16UC1: depth or 16 bits per pixel")
    assert problems["blind.bag"].endswith("got /joint_states (sensor_msgs/JointState, column)")
    assert "cannot be read" in problems["half"]
    assert any("cannot be read" in reason for path, reason in problems.items() if path.startswith("last"))
    assert all(len(reason.splitlines()) == 1 for reason in problems.values()), problems
    assert store.num_episodes >= 2


def test_an_ingest_that_reads_nothing_leaves_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bag", rows())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"nothing could be read from .*a.bag: a.bag: holds no pictures"):
        ingest(path, out=tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()


def test_inspect_names_topics_cameras_and_encodings(tmp_path: Path) -> None:
    facts = inspect_source(write(tmp_path / "a.bag", rows("bayer_rggb8")))
    assert (facts.format, facts.codecs, facts.frames_per_s) == ("rosbag", ("bayer_rggb8", "jpeg"), (10.0,))
    assert "/cam/jpeg (sensor_msgs/CompressedImage, jpeg)" in facts.remarks[0]


def test_without_the_reader_the_pip_line_is_given(tmp_path: Path) -> None:
    write(tmp_path / "a.bag", rows())
    program = (
        "import sys; sys.modules['rosbags'] = None\nfrom pathlib import Path\n"
        "from robossl.data.sources import source_class\nsource_class('rosbag')(Path(sys.argv[1])).listing()"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("pip install 'robossl[rosbag]'")
