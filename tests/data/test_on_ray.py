"""Ingest and embed on a Ray cluster: the results of one machine, also if a machine is killed in mid-run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import robossl
from robossl.encoders.embed import embed
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder

pytest.importorskip("ray", reason="needs robossl[ray] in an environment of its own")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets open


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "arm"
    rng = np.random.default_rng(0)
    for episode in range(6):
        folder = root / f"episode_{episode:02d}"
        folder.mkdir(parents=True)
        for frame in range(1100):  # two episodes fill a shard
            Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / f"{frame:05d}.png")
    return root


@pytest.fixture(scope="module")
def local(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> robossl.Store:
    return robossl.ingest(corpus, out=tmp_path_factory.mktemp("local") / "store", short_side=24, workers=1)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two machines of one CPU each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [found.add_node(num_cpus=1) for _ in range(2)]
    yield found, nodes
    found.shutdown()


def start(address: str, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "robossl", *arguments, "--on", "ray"]
    environment = os.environ | {"RAY_ADDRESS": address}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def content(store: robossl.Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.path / "shards").glob("*.arrow")}


def test_a_machine_that_dies_costs_nothing(corpus: Path, local: robossl.Store, cluster: Any, tmp_path: Path) -> None:
    found, nodes = cluster
    process = start(found.address, "ingest", str(corpus), "--out", str(tmp_path / "store"), "--short-side", "24")
    shards, deadline = tmp_path / "store" / "shards", time.monotonic() + 120
    while not list(shards.glob("*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    found.remove_node(nodes[0], allow_graceful=False)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    store = robossl.open_store(tmp_path / "store")
    assert store.content_hash == local.content_hash
    assert content(store) == content(local)


def test_features_are_those_of_one_machine(local: robossl.Store, cluster: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32))), run / "encoder", extra={})
    alone = embed(run, local.path, out=tmp_path / "alone")
    process = start(cluster[0].address, "embed", str(run), str(local.path), "--out", str(tmp_path / "there"))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    first, second = pq.read_table(alone), pq.read_table(tmp_path / "there")
    assert first.drop(["pooled"]).equals(second.drop(["pooled"])) and len(list(alone.iterdir())) == 2
    values = [np.stack(table["pooled"].to_numpy()) for table in (first, second)]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


def test_no_cluster_is_one_line(corpus: Path, tmp_path: Path) -> None:
    process = start("127.0.0.1:1", "ingest", str(corpus), "--out", str(tmp_path / "store"))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "set RAY_ADDRESS=HOST:PORT" in said.splitlines()[-1]
