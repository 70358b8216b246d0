"""Features of a store as a folder of parquet files: right rows, killed runs go on, machines share the work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from robossl_client.card import EncoderCard

from robossl.data.parts import Part
from robossl.data.store import Store
from robossl.encoders.embed import embed
from robossl.encoders.embed_table import embed_store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.inference import FrameEncoder, load_encoder
from robossl.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "arm"
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64))), folder / "encoder", extra={})
    return folder


@pytest.fixture(scope="module")
def encode(run: Path) -> FrameEncoder:
    return load_encoder(run, outputs=("pooled", "dense"))


def test_every_row_has_the_features_of_its_frame(encode: FrameEncoder, clip_store: Store, tmp_path: Path) -> None:
    num_frames = embed_store(encode, clip_store, tmp_path / "out", file_rows=64)
    table = pq.read_table(tmp_path / "out")
    assert num_frames == clip_store.num_frames == table.num_rows
    assert len(list((tmp_path / "out").iterdir())) == -(-num_frames // 64)
    assert table["row"].to_pylist() == list(range(num_frames))
    metadata = table.schema.metadata
    shapes = json.loads(metadata[b"robossl.shapes"])
    assert EncoderCard.from_json(metadata[b"robossl.card"].decode()).digest == encode.card.digest
    for row in (0, 63, 64, num_frames - 1):
        line = table.slice(row, 1).to_pylist()[0]
        episode = int(clip_store.episode_of(np.array([row]))[0])
        assert line["episode"] == clip_store.episode_id[episode]
        assert line["frame"] == row - clip_store.episode_start[episode]
        assert line["time_seconds"] == clip_store.time_seconds[row]
        wanted = encode(clip_store.decode([row])[0].permute(1, 2, 0).numpy()[None])
        for name, value in wanted.items():
            np.testing.assert_allclose(np.reshape(line[name], shapes[name]), value[0], rtol=1e-4, atol=1e-5)


def test_a_killed_run_goes_on_and_two_parts_are_the_whole(
    encode: FrameEncoder, clip_store: Store, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    embed_store(encode, clip_store, whole, file_rows=64)
    files = sorted(whole.iterdir())
    content = {path.name: path.read_bytes() for path in files}
    times = {path.name: path.stat().st_mtime_ns for path in files}
    files[1].unlink()  # a file is renamed into place when it is whole, so a kill leaves whole files only
    (whole / f"{files[1].name}.123.tmp").write_bytes(b"half")
    embed_store(encode, clip_store, whole, file_rows=64)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == content
    assert [path.stat().st_mtime_ns == times[path.name] for path in files[:3]] == [True, False, True]

    counts = [embed_store(encode, clip_store, parts, part=Part(number, 2), file_rows=64) for number in (1, 2)]
    assert sum(counts) == clip_store.num_frames and min(counts) > 0
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == content


def test_the_command_writes_a_folder_and_refuses_to_mix(
    run: Path, clip_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = next(name for name in clip_store.manifest.splits if name)
    out = embed(run, clip_store.path, out=tmp_path / "features", split=split, part="1/1")
    assert f"{len(clip_store.rows(split))} frames, by arm" in capsys.readouterr().out
    assert pq.read_table(out).num_rows == len(clip_store.rows(split))
    with pytest.raises(InputError, match=rf"was computed with split {split}, got None; choose another --out"):
        embed(run, clip_store.path, out=out)
    other = tmp_path / "other"
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32))), other / "encoder", extra={})
    with pytest.raises(InputError, match=r"was computed with encoder [0-9a-f]+, got"):
        embed(other, clip_store.path, out=out, split=split)
