"""MCAP, written by mcap and mcap-ros2-support: the right frames, times and columns, and what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_kit import DEFINITIONS, LATE, START, STEP, compressed, image, joints, stamp, video
from counters import check, jpeg, picture, read_all
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from mcap.writer import CompressionType, IndexType, Writer
from mcap_ros2._dynamic import serialize_dynamic

from robossl.data.describe import info
from robossl.data.ingest import ingest
from robossl.data.inspection import inspect_source
from robossl.data.source import Damaged
from robossl.data.sources import detect_format, source_class
from robossl.errors import InputError

Row = tuple[str, str, int, Any]  # topic, type, log time, fields
SECONDS = [number / 10 for number in range(12)]


def write(path: Path, rows: Iterable[Row], **options: Any) -> Path:
    with open(path, "wb") as file:
        writer = Writer(file, **{"chunk_size": 20_000, **options})
        writer.start(profile="ros2")
        channels: dict[str, tuple[int, Any]] = {}
        for topic, kind, log_time, fields in rows:
            if topic not in channels:
                schema = writer.register_schema(kind, "ros2msg", DEFINITIONS[kind].encode())
                encode = serialize_dynamic(kind, DEFINITIONS[kind])[kind]
                channels[topic] = writer.register_channel(topic, "cdr", schema), encode
            channel, encode = channels[topic]
            writer.add_message(channel, log_time, encode(fields), log_time)
        writer.finish()
    return path


def images(topic: str = "/cam/front", encoding: str = "rgb8", count: int = 12, **options: int) -> list[Row]:
    return [
        (topic, "sensor_msgs/msg/Image", START + at * STEP + LATE, image(at, START + at * STEP, encoding, **options))
        for at in range(count)
    ]


def by_time(*rows: list[Row]) -> list[Row]:
    return sorted((row for some in rows for row in some), key=lambda row: row[2])


def states(every: int = 30_000_000, count: int = 41) -> list[Row]:
    kind = "sensor_msgs/msg/JointState"
    return [("/joint_states", kind, START + at * every + 1, joints(at, START + at * every)) for at in range(count)]


ENCODINGS = ["rgb8", "bgr8", "rgba8", "bgra8", "yuv422", "yuv422_yuy2"]
ENCODINGS += [f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("padding", [0, 6])
def test_every_encoding_of_raw_images(tmp_path: Path, encoding: str, padding: int) -> None:
    path = write(tmp_path / "a.mcap", images(encoding=encoding, padding=padding))
    frames = read_all(path, "mcap")["a.mcap/cam/front"]
    check(frames, list(range(12)), SECONDS)
    if not encoding.startswith(("yuv", "bayer")):
        np.testing.assert_array_equal(frames[5].pixels, picture(5))


def test_mono_is_grey(tmp_path: Path) -> None:
    frames = read_all(write(tmp_path / "a.mcap", images(encoding="mono8")), "mcap")["a.mcap/cam/front"]
    grey = picture(5).mean(2).astype(np.uint8)
    np.testing.assert_array_equal(frames[5].pixels, np.stack([grey] * 3, 2))


def test_cameras_of_a_recording_with_columns(tmp_path: Path) -> None:
    kind = "sensor_msgs/msg/CompressedImage"
    left = [("/left ü", kind, START + at * STEP + LATE, compressed(at, START + at * STEP)) for at in range(12)]
    right = [("/right", kind, START + at * STEP, compressed(11 - at, 0, "png")) for at in range(12)]
    actions = [
        ("/action", "std_msgs/msg/Float64MultiArray", START + at * STEP + LATE, {"data": [at, -at]}) for at in range(12)
    ]
    said = [("/said", "std_msgs/msg/String", START + 5, {"data": "pick"})]
    path = write(tmp_path / "two words ü.mcap", by_time(left, right, states(), actions, said))
    assert detect_format(path) == detect_format(tmp_path) == "mcap"
    listing = source_class("mcap")(path).listing()
    assert listing.columns == {"action": 2, "joint_states.position": 3, "column_gap_seconds": 1}
    assert not listing.skipped and not listing.notes
    assert "/said (std_msgs/String)" in listing.remarks[0]
    found = read_all(tmp_path, "mcap")
    assert list(found) == ["two words ü.mcap/left ü", "two words ü.mcap/right"]
    check(found["two words ü.mcap/left ü"], list(range(12)), SECONDS)
    check(found["two words ü.mcap/right"], list(range(11, -1, -1)), SECONDS)
    for at, frame in enumerate(found["two words ü.mcap/left ü"]):
        nearest = round(at * 100 / 30)
        np.testing.assert_array_equal(frame.columns["joint_states.position"], 10 * nearest + np.arange(3))
        np.testing.assert_array_equal(frame.columns["action"], [at, -at])
        assert frame.columns["column_gap_seconds"] == pytest.approx(abs(at * 0.1 - nearest * 0.03), abs=1e-6)


def test_info_states_the_largest_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.mcap", by_time(images(), states(count=38)))  # the last joints are 10 ms late
    late = [(topic, kind, time + 5 * 10**9, fields) for topic, kind, time, fields in states(count=30)]
    for at, row in enumerate(late):
        row[3]["header"]["stamp"] = stamp(START + 30_000_000 * (at + 20))
    write(tmp_path / "b.mcap", by_time(images("/other"), late))
    info(ingest(tmp_path, out=tmp_path / "store", workers=1).path)
    assert "at most 0.600 s from their frame" in capsys.readouterr().out


def test_joints_in_another_order_or_of_another_arm(tmp_path: Path) -> None:
    kind = "sensor_msgs/msg/JointState"
    names = [("a", "b", "c"), ("c", "a", "b"), ("b",)]
    rows = [
        ("/joint_states", kind, START + at * STEP, joints(at, START + at * STEP, names[at % 3])) for at in range(12)
    ]
    frames = read_all(write(tmp_path / "a.mcap", by_time(images(), rows)), "mcap")["a.mcap/cam/front"]
    positions = [frame.columns["joint_states.position"].tolist() for frame in frames]
    assert positions[1] == [10, 11, 12] and positions[2] in ([10, 11, 12], [30, 31, 32])


@pytest.mark.parametrize(("codec", "format"), [("libx264", "h264"), ("libx265", "h265")])
@pytest.mark.parametrize("form", ["video", "image"])
def test_video(tmp_path: Path, codec: str, format: str, form: str) -> None:
    kind = "foxglove_msgs/msg/CompressedVideo" if form == "video" else "sensor_msgs/msg/CompressedImage"
    rows: list[Row] = []
    for at, data in enumerate(video(codec, range(12))):
        time = START + at * STEP
        fields: dict[str, Any] = {"data": data, "format": format, "frame_id": "cam", "timestamp": stamp(time)}
        fields["header"] = {"stamp": stamp(time), "frame_id": "cam"}
        rows.append(("/video", kind, time + LATE, fields))
    check(read_all(write(tmp_path / "a.mcap", rows), "mcap")["a.mcap/video"], list(range(12)), SECONDS)
    late = write(tmp_path / "late.mcap", rows[2:])
    assert "begins between key frames" in source_class("mcap")(late).listing().notes[0].reason
    check(read_all(late, "mcap")["late.mcap/video"], list(range(5, 12)), SECONDS[:7])
    lossy = write(tmp_path / "lossy.mcap", rows[:7] + rows[8:])
    why = {"h264": "a message of the h264 video is missing: picture 3 comes after 1", "h265": "corrupt h265 message"}
    with pytest.raises(Damaged, match=why[format]):
        read_all(lossy, "mcap")


def foxglove_class() -> tuple[Any, bytes]:
    """The class of foxglove.CompressedImage, and its schema."""
    file = descriptor_pb2.FileDescriptorProto(name="image.proto", package="foxglove", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    message = file.message_type.add(name="CompressedImage")
    message.field.add(name="timestamp", number=1, type=11, label=1, type_name=".google.protobuf.Timestamp")
    for name, number, type_ in (("frame_id", 4, 9), ("data", 2, 12), ("format", 3, 9)):
        message.field.add(name=name, number=number, type=type_, label=1)
    time = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(time)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(time)
    pool.Add(file)
    schema = descriptor_pb2.FileDescriptorSet(file=[time, file]).SerializeToString()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.CompressedImage")), schema


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_pictures_of_foxglove(tmp_path: Path, encoding: str) -> None:
    made, schema_data = foxglove_class()
    with open(tmp_path / "a.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema(
            "foxglove.CompressedImage", "protobuf" if encoding == "protobuf" else "jsonschema", schema_data
        )
        channel = writer.register_channel("/cam", encoding, schema)
        for at in range(12):
            seconds, nanos = divmod(START + at * STEP, 10**9)
            if encoding == "protobuf":
                message = made(data=jpeg(at), format="jpeg", timestamp={"seconds": seconds, "nanos": nanos})
                data = message.SerializeToString()
            else:
                text = {"data": base64.b64encode(jpeg(at)).decode(), "format": "jpeg"}
                data = json.dumps({**text, "timestamp": {"sec": seconds, "nsec": nanos}}).encode()
            writer.add_message(channel, START + 3 * at, data, START)
        writer.finish()
    check(read_all(tmp_path, "mcap")["a.mcap/cam"], list(range(12)), SECONDS)


def test_times(tmp_path: Path) -> None:
    kind = "sensor_msgs/msg/Image"
    uneven = [0, 33_000_000, 34_000_000, 500_000_000, 1_500_000_000]
    rows = [("/cam", kind, START + LATE, image(at, START + time)) for at, time in enumerate(uneven)]
    found = read_all(write(tmp_path / "uneven.mcap", rows), "mcap")["uneven.mcap/cam"]
    check(found, list(range(5)), [time / 1e9 for time in uneven])
    rows = [("/cam", kind, START + time, image(at, 0)) for at, time in enumerate(uneven)]
    check(
        read_all(write(tmp_path / "zero.mcap", rows), "mcap")["zero.mcap/cam"],
        list(range(5)),
        [t / 1e9 for t in uneven],
    )
    rows = [("/cam", kind, START + at, image(at, START - (at == 3) * STEP)) for at in range(5)]
    with pytest.raises(Damaged, match=r"the time of frame 3 is 0.100 s before that of the frame before it"):
        read_all(write(tmp_path / "back.mcap", rows), "mcap")


def test_messages_are_sorted_by_log_time(tmp_path: Path) -> None:
    rows = images()
    mixed = [rows[at] for at in (1, 0, 4, 3, 2, 5, 8, 7, 6, 10, 9, 11)]
    path = write(tmp_path / "a.mcap", mixed, chunk_size=2 * 48 * 64 * 3)
    check(read_all(path, "mcap")["a.mcap/cam/front"], list(range(12)), SECONDS)


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize("use_chunking", [True, False])
def test_without_an_index_and_cut_short(tmp_path: Path, compression: CompressionType, use_chunking: bool) -> None:
    options = {"compression": compression, "use_chunking": use_chunking, "repeat_channels": False}
    options |= {"index_types": IndexType.NONE, "use_statistics": False, "use_summary_offsets": False}
    options |= {"repeat_schemas": False}
    rows = by_time(images(), states())
    path = write(tmp_path / "a.mcap", rows, **options)
    check(read_all(path, "mcap")["a.mcap/cam/front"], list(range(12)), SECONDS)
    assert not source_class("mcap")(path).listing().notes
    for kind in ({"use_chunking": use_chunking, "compression": compression}, options):
        whole = write(path, rows, **kind).read_bytes()
        for size in (len(whole) - 4, len(whole) * 3 // 4, len(whole) // 2):
            path.write_bytes(whole[:size])
            frames = read_all(path, "mcap")["a.mcap/cam/front"]
            check(frames, list(range(len(frames))), SECONDS[: len(frames)])
            whole_data = size == len(whole) - 4 or compression is not CompressionType.NONE
            assert len(frames) == 12 if size == len(whole) - 4 else 1 <= len(frames) < 12 + whole_data
            (note,) = source_class("mcap")(path).listing().notes
            assert note.path == "a.mcap" and note.reason.startswith("is cut short; the ")


def test_a_recording_of_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "run 1"
    folder.mkdir()
    packets = video("libx264", range(12))
    kind = "foxglove_msgs/msg/CompressedVideo"
    rows = [
        (
            "/video",
            kind,
            START + at,
            {"timestamp": stamp(START + at * STEP), "frame_id": "", "data": data, "format": "h264"},
        )
        for at, data in enumerate(packets)
    ]
    # The second file sorts before the first, and begins between key frames.
    write(folder / "run_9.mcap", rows[:7])
    write(folder / "run_10.mcap", rows[7:])
    names = "\n    - ".join(["run_9.mcap", "run_10.mcap"])
    (folder / "metadata.yaml").write_text(f"rosbag2_bagfile_information:\n  relative_file_paths:\n    - {names}\n")
    for root in (tmp_path, folder):
        found = read_all(root, "mcap")
        assert list(found) == ["run 1/video"]
        check(found["run 1/video"], list(range(12)), SECONDS)
    (folder / "run_10.mcap").unlink()
    listing = source_class("mcap")(folder).listing()
    assert listing.notes[0].reason == "run_10.mcap of its metadata.yaml is missing; the other files are read"


def test_damage_is_named_and_the_rest_is_stored(tmp_path: Path) -> None:
    root = tmp_path / "bags"
    root.mkdir()
    whole = write(root / "good.mcap", images()).read_bytes()
    (root / "text.mcap").write_text("hello, I am no bag")
    (root / "head.mcap").write_bytes(whole[:60])
    (root / "good.mcap.zstd").write_bytes(whole)
    with open(root / "ros1.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"")
        writer.add_message(writer.register_channel("/cam", "ros1", schema), START, b"", START)
        writer.finish()
    flipped = bytearray(write(root / "flipped.mcap", images(), compression=CompressionType.NONE).read_bytes())
    flipped[flipped.index(picture(3).tobytes()) + 500] ^= 255
    (root / "flipped.mcap").write_bytes(flipped)
    write(root / "depth.mcap", by_time(images(), images("/depth", "16UC1"))[:-4])
    write(root / "odd.mcap", images(encoding="my_yuv"[:5]))
    write(root / "blind.mcap", states())
    sizes = images()
    sizes[5][3].update(height=24, data=sizes[5][3]["data"][: 24 * 64 * 3])
    write(root / "sizes.mcap", sizes)
    short = images()
    short[5][3].update(data=short[5][3]["data"][:-9])
    write(root / "short.mcap", short)
    store = ingest(root, out=tmp_path / "store", workers=1)
    (source,) = store.manifest.sources
    problems = {problem.path: problem.reason for problem in source.skipped}
    assert "not a valid MCAP file" in problems["text.mcap"]
    assert problems["head.mcap"].startswith("holds no pictures; ") and "cut short" in problems["head.mcap"]
    assert problems["good.mcap.zstd"].startswith("compressed as a file; decompress it: zstd -d FILE")
    assert problems["ros1.mcap/cam"].startswith("messages in ros1 with a schema in ros1msg; cdr with ros2msg,")
    assert problems["flipped.mcap/cam/front"] == "the checksum of a chunk is wrong"
    assert problems["depth.mcap/depth"].startswith("encoding 16UC1: depth or 16 bits per pixel")
    assert "encoding 'my_yu' is not supported; rgb8, bgr8" in problems["odd.mcap/cam/front"]
    assert "got /joint_states (sensor_msgs/JointState, column)" in problems["blind.mcap"]
    assert "frame 5 has 64x24 pixels, frame 0 has 64x48" in problems["sizes.mcap/cam/front"]
    assert "9207 bytes and step 192 are too few for 64x48 pixels in rgb8" in problems["short.mcap/cam/front"]
    assert all(len(reason.splitlines()) == 1 for reason in problems.values())
    assert store.num_episodes == 2


def test_an_ingest_that_reads_nothing_leaves_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mcap", images(encoding="16UC1"))
    with pytest.raises(InputError, match=r"nothing could be read from .*a.mcap: a.mcap/cam/front: encoding 16UC1"):
        ingest(path, out=tmp_path / "store", workers=1)
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match=r"nothing could be read from .*a.mcap: a.mcap: holds no pictures"):
        ingest(path, out=tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()


def test_inspect_names_topics_cameras_and_encodings(tmp_path: Path) -> None:
    facts = inspect_source(write(tmp_path / "a.mcap", by_time(images(), states())))
    assert (facts.format, facts.num_frames, facts.codecs, facts.frames_per_s) == ("mcap", 12, ("rgb8",), (10.0,))
    assert facts.labels == {"camera": 1, "recording": 1} and facts.columns["joint_states.position"] == 3
    assert facts.remarks[0] == (
        "a.mcap: reads /cam/front (sensor_msgs/Image, rgb8), /joint_states (sensor_msgs/JointState, column)"
    )


def test_without_the_reader_the_pip_line_is_given(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", images())
    program = (
        "import sys; sys.modules['mcap_ros2'] = None\nfrom pathlib import Path\n"
        "from robossl.data.sources import source_class\nsource_class('mcap')(Path(sys.argv[1])).listing()"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("pip install 'robossl[mcap]'")
