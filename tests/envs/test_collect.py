"""Collection: the same frames however many workers, and what is left when environments, workers or the disk fail."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from places import kits_environment
from robossl_envs.collect import collect as collect_any
from robossl_envs.collection import crew, trial
from robossl_envs.collection.report import CollectionSummary
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.trial import describe_in_process

from robossl.common.atomic_io import locked
from robossl.data.ingest import ingest
from robossl.data.sources.lerobot import LeRobotSource
from robossl.data.store import open_store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError, ResourceError

collect = partial(collect_any, module=("dots",))
HANG_SECONDS = 4.0


def table(out: Path) -> dict[str, np.ndarray]:
    found = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("data/*/*.parquet")))
    return {name: np.array(found[name].to_pylist()) for name in found.column_names}


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*") if path.is_file()}


def readable(out: Path) -> list[int]:
    """Lengths of all episodes, every frame of which is read; the totals may lag behind where a kill cut them short."""
    source = LeRobotSource(out)
    listing = source.listing()
    assert not listing.skipped
    return [len(list(source.frames(unit))) for unit in listing.units]


def start(*argv: str, limit_bytes: int = resource.RLIM_INFINITY, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "robossl", "collect", "--module", "dots", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kits_environment() | environ,
        preexec_fn=partial(_prepare, limit_bytes),
    )


def _prepare(limit_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def test_one_worker_and_two_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common: dict[str, Any] = {"env": "dots/Known-v0", "agent": "pink", "episodes": 7, "nuisances": "all"}
    one = collect(out=tmp_path / "one", workers=1, seed=3, **common)
    said = capsys.readouterr().out
    assert "7 episodes of dots/Known-v0 by pink, at most 20 steps each, 96x96 at 10 fps" in said
    assert f"holds 7 episodes, {one.num_frames} frames; 0 attempts failed, 0 episodes dropped" in said
    assert one == collect(out=tmp_path / "two", workers=2, seed=3, **common)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert readable(tmp_path / "two") and sum(readable(tmp_path / "two")) == one.num_frames
    rows = table(tmp_path / "two")
    assert len(np.unique(rows["nuisance"])) > 2  # a strength for each episode
    assert {len(set(rows["nuisance"][rows["episode_index"] == k].tolist())) for k in range(7)} == {1}
    for k in range(7):  # the state is that of the frame, before the action
        here = rows["episode_index"] == k
        states, actions = rows["observation.state"][here], rows["action"][here]
        assert np.allclose(states[1:], np.clip(states[:-1] + 0.04 * actions[:-1], -1, 1), atol=1e-6)
        assert rows["next.done"][here].tolist() == [False] * (here.sum() - 1) + [True]
    collect(out=tmp_path / "other", workers=1, seed=4, **common)
    assert not np.array_equal(table(tmp_path / "other")["action"], rows["action"])


def test_a_worker_gets_its_next_episode_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_SECONDS", 120.0)  # what an idle worker would wait for, were its crew to look on
    began = time.monotonic()
    collect(env="dots/Known-v0", agent="random", episodes=3, out=tmp_path / "out", workers=1)
    assert time.monotonic() - began < 120


def test_ingest_takes_what_was_collected(tmp_path: Path) -> None:
    collect(env="dots/Known-v0", agent="expert", episodes=3, out=tmp_path / "out", workers=1, image_size=64)
    ingest([tmp_path / "out"], out=tmp_path / "store", short_side=64, workers=1, strict=True)
    store = open_store(tmp_path / "store")
    assert store.num_episodes == 3
    assert store.column("observation.environment_state", np.arange(2)).shape == (2, 2)


@pytest.mark.parametrize(("env", "columns"), [("dots/Pixels-v0", set()), ("dots/Steps-v0", {"observation.state"})])
def test_foreign_environments_give_what_they_have(env: str, columns: set[str], tmp_path: Path) -> None:
    collect(env=env, agent="random", episodes=2, out=tmp_path / "out", workers=1, image_size=32, fps=5, max_steps=6)
    rows = table(tmp_path / "out")
    assert columns == {name for name in rows if name.startswith("observation")}
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["fps"], info["features"]["observation.images.top"]["shape"]) == (5, [32, 32, 3])
    assert readable(tmp_path / "out") == [6, 6]


@pytest.mark.parametrize("agent", ["random", "count", "rnd"])
def test_workers_have_no_torch_and_one_thread(agent: str, tmp_path: Path) -> None:
    assert collect(env="dots/NoTorch-v0", agent=agent, episodes=3, out=tmp_path / "out", workers=2).num_failures == 0
    assert len(readable(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("agent", "fault", "said"),
    [
        ("random", "crash", "the worker was killed by SIGKILL"),
        ("random", "hang", f"the worker hung for {HANG_SECONDS:g} s"),
        ("random", "raise", "RuntimeError: the motor stalled"),
        ("count", "crash", "the worker was killed by SIGKILL"),
        ("count", "hang", f"the worker hung for {HANG_SECONDS:g} s"),
        ("count", "raise", "RuntimeError: the motor stalled"),
    ],
)
def test_a_failed_episode_is_counted_and_played_again(
    agent: str,
    fault: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "fault").write_text(fault)
    monkeypatch.setenv("DOTS_FAULT", str(tmp_path / "fault"))
    collected = collect(
        env="dots/Failing-v0", agent=agent, episodes=4, out=tmp_path / "out", workers=2, hang_seconds=HANG_SECONDS
    )
    assert collected == CollectionSummary(4, collected.num_frames, num_dropped=0, num_failures=1)
    assert len(readable(tmp_path / "out")) == 4
    assert f"failed: {said}\n" in capsys.readouterr().out
    if agent == "random":
        collect(env="dots/Failing-v0", agent=agent, episodes=4, out=tmp_path / "whole", workers=1)
        assert np.array_equal(table(tmp_path / "out")["action"], table(tmp_path / "whole")["action"])


def test_an_episode_that_always_fails_is_dropped_and_the_gap_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common: dict[str, Any] = {"env": "dots/Cursed-v0", "agent": "random", "out": tmp_path / "out", "workers": 1}
    collected = collect(episodes=8, **common)
    assert 0 < collected.num_dropped < 8
    assert collected.num_episodes == 8 - collected.num_dropped == len(readable(tmp_path / "out"))
    assert f"{collected.num_dropped} episodes dropped" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out/meta/collection.json").read_text())
    assert set(kept["dropped"].values()) == {"RuntimeError: cursed"}
    before = files(tmp_path / "out")
    collect(episodes=8, **common)
    assert all(files(tmp_path / "out")[name] == before[name] for name in before if name.startswith(("data", "videos")))


def test_an_environment_that_only_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fault").write_text("raise")
    monkeypatch.setenv("DOTS_FAULT", str(tmp_path / "fault"))
    monkeypatch.setenv("DOTS_FAULT_STAYS", "1")
    with pytest.raises(ResourceError, match=r"^9 attempts failed one after another, .*: the motor stalled; fix"):
        collect(env="dots/Failing-v0", agent="random", episodes=9, out=tmp_path / "out", workers=1)
    monkeypatch.delenv("DOTS_FAULT_STAYS")
    (tmp_path / "fault").unlink()
    again = collect(env="dots/Failing-v0", agent="random", episodes=9, out=tmp_path / "out", workers=1)
    assert (again.num_episodes, again.num_dropped) == (9, 0)
    more = collect(env="dots/Failing-v0", agent="random", episodes=11, out=tmp_path / "out", workers=1)
    assert (more.num_episodes, more.num_dropped) == (11, 0)


def test_a_collection_without_an_episode_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fault").write_text("raise")
    monkeypatch.setenv("DOTS_FAULT", str(tmp_path / "fault"))
    monkeypatch.setenv("DOTS_FAULT_STAYS", "1")
    common: dict[str, Any] = {"env": "dots/Failing-v0", "agent": "random", "out": tmp_path / "out", "workers": 1}
    with pytest.raises(ResourceError, match=r"^no episode could be played, 1 dropped; .*: the motor stalled; fix the"):
        collect(episodes=1, **common)
    (tmp_path / "fault").unlink()
    assert collect(episodes=1, **common).num_episodes == 1
    (tmp_path / "fault").write_text("raise")
    assert collect(episodes=2, **common).num_dropped == 1


@pytest.mark.parametrize(
    ("env", "said"),
    [("dots/Stuck-v0", "hung for 0.5 s"), ("dots/Segfault-v0", "was killed by SIGSEGV")],
)
def test_an_environment_that_hangs_or_crashes_at_once_is_said_in_one_line(
    env: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "START_SECONDS", 0.5 if "hung" in said else 60.0)
    with pytest.raises(InputError, match=rf"^{env} {said} while it was opened, .*; see robossl doctor {env}$"):
        collect(env=env, episodes=1, out=tmp_path / "out", workers=1, hang_seconds=0.5)


def test_what_is_no_number_costs_its_episode_and_is_not_written(tmp_path: Path) -> None:
    # with this seed only episodes 1 and 10 are such: nine failures in a row would end the collection
    collected = collect(env="dots/Strange-v0", episodes=12, out=tmp_path / "out", workers=2, seed=45)
    assert collected.num_episodes == 10 == len(readable(tmp_path / "out")) and collected.num_dropped == 2
    kept = json.loads((tmp_path / "out/meta/collection.json").read_text())
    said = {reason.split(",")[0] for reason in kept["dropped"].values()}
    assert said == {"ValueError: observation.state must be finite", "ValueError: next.reward must be finite"}
    stats = (tmp_path / "out/meta/stats.json").read_text()
    assert "NaN" not in stats and "Infinity" not in stats


def test_all_nuisances_are_those_that_change_something() -> None:
    reach, push = (
        describe_in_process(CollectionSettings(f"robossl/{name}-v0", "random", nuisances=("all",)), hang_seconds=60)
        for name in ("Reach", "Push")
    )
    assert {*push.nuisances} - {*reach.nuisances} == {f"manip_object_{what}" for what in ("color", "size", "texture")}
    assert reach.columns[2].width == push.columns[2].width == len(push.nuisances) + 1  # robot_start has no effect


def test_killed_it_is_readable_and_goes_on(tmp_path: Path) -> None:
    argv = ["--env", "dots/Slow-v0", "--agent", "random", "--episodes", "9", "--workers", "2"]
    process = start(*argv, "--out", str(tmp_path / "killed"))
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("meta/episodes/*/*.parquet"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.communicate()
    done = readable(tmp_path / "killed")
    assert 2 <= len(done) < 9
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlived the killed collection"
        time.sleep(0.02)
    common: dict[str, Any] = {"env": "dots/Slow-v0", "agent": "random", "episodes": 9, "workers": 2}
    for name in ("killed", "straight"):
        assert collect(out=tmp_path / name, **common).num_episodes == 9
    assert files(tmp_path / "killed") == files(tmp_path / "straight")


def test_episodes_are_added_and_other_arguments_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    collect(env="dots/Dot-v0", agent="random", episodes=2, out=out, workers=1)
    assert collect(env="dots/Dot-v0", agent="random", episodes=3, out=out, workers=2).num_episodes == 3
    capsys.readouterr()
    collect(env="dots/Dot-v0", agent="random", episodes=3, out=out, workers=1)
    assert "already holds every episode" in capsys.readouterr().out
    with pytest.raises(InputError) as caught:
        collect(env="dots/Dot-v0", agent="pink", episodes=3, out=out, workers=1, fps=5)
    assert str(caught.value) == (
        f"{out} was collected with --agent random, not pink; --fps (default), not 5; use the same settings, "
        "or another --out"
    )
    with locked(out, "collection"), pytest.raises(ResourceError, match="another collection is writing to"):
        collect(env="dots/Dot-v0", agent="random", episodes=3, out=out, workers=1)
    with pytest.raises(InputError, match="is not empty and is not a collection; choose another --out"):
        collect(env="dots/Dot-v0", agent="random", episodes=3, out=tmp_path, workers=1)


def test_frames_are_the_fewest_whole_episodes_whoever_plays(tmp_path: Path) -> None:
    common: dict[str, Any] = {"env": "dots/Known-v0", "agent": "noisy_expert", "max_steps": 60}
    one = collect(out=tmp_path / "one", frames=300, workers=1, **common)
    assert one.num_frames - readable(tmp_path / "one")[-1] < 300 <= one.num_frames
    assert one.num_episodes > 300 / 60  # some end early, so more were played than was certain at first
    two = collect(out=tmp_path / "two", frames=120, workers=2, **common)
    assert 120 <= two.num_frames < one.num_frames
    assert collect(out=tmp_path / "two", frames=300, workers=2, **common) == one
    assert table(tmp_path / "one")["action"].tolist() == table(tmp_path / "two")["action"].tolist()
    assert not list((tmp_path / "two" / ".parts").iterdir())  # nothing was played that is not needed
    assert collect(out=tmp_path / "two", frames=300, workers=2, **common) == one
    more = collect(out=tmp_path / "two", episodes=one.num_episodes + 2, workers=1, **common)
    assert more.num_episodes == one.num_episodes + 2


def encoder_folder(folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    save_encoder(encoder, folder, extra={"method": None, "step": 0, "data": []})
    return folder


def test_novelty_acts_on_an_encoder_which_is_known_by_its_weights(tmp_path: Path) -> None:
    first, other = encoder_folder(tmp_path / "first", 0), encoder_folder(tmp_path / "other", 1)
    common: dict[str, Any] = {"env": "dots/NoTorch-v0", "agent": "novelty", "workers": 2, "out": tmp_path / "out"}
    assert collect(episodes=3, encoder=first, **common).num_failures == 0
    with pytest.raises(InputError, match=r"was collected with --encoder [0-9a-f]{16}, not [0-9a-f]{16}; use the same"):
        collect(episodes=4, encoder=other, **common)
    shutil.move(first, tmp_path / "moved")
    assert collect(episodes=4, encoder=tmp_path / "moved", **common).num_episodes == 4


@pytest.mark.parametrize(
    ("agent", "episodes", "limit_bytes"),
    [("random", 24, 45_000), ("count", 48, 60_000)],  # memory shared by a learner's workers, 55 kB, is a file too
)
def test_a_full_disk_ends_with_one_line_and_what_was_written(
    agent: str, episodes: int, limit_bytes: int, tmp_path: Path
) -> None:
    argv = ["--env", "dots/Dot-v0", "--agent", agent, "--episodes", str(episodes), "--workers", "2"]
    process = start(*argv, "--out", str(tmp_path / "out"), limit_bytes=limit_bytes)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1, said + errors
    assert errors.startswith("robossl: disk full while writing") and errors.count("\n") == 1
    before = len(readable(tmp_path / "out"))
    assert before > 0
    collected = collect(env="dots/Dot-v0", agent=agent, episodes=episodes, out=tmp_path / "out", workers=1)
    assert collected.num_episodes == episodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "dots/Dto-v0"}, r"no environment 'dots/Dto-v0' is registered; the nearest ids are dots/Dot-v0"),
        ({"env": "dots/Blind-v0"}, r"cannot render rgb_array \(it offers human\)"),
        ({"env": "dots/NoGL-v0"}, r"cannot be made \(ImportError: libGL.so.1.*robossl doctor dots/NoGL-v0 says what"),
        ({"env": "dots/Odd-v0"}, r"has actions Dict.*collection takes Box and Discrete"),
        ({"env": "dots/Steps-v0", "agent": "pink"}, r"has actions Discrete\(4\); this agent needs a bounded Box"),
        ({"env": "dots/Dot-v0", "agent": "expert"}, r"has no scripted expert"),
        ({"agent": "pnik"}, r"unknown agent 'pnik'; did you mean 'pink'"),
        ({"nuisances": "all"}, r"dots/Dot-v0 has no nuisances to set"),
        ({"env": "dots/Known-v0", "nuisances": "ligth"}, r"has no nuisance ligth; choose from all, light"),
        ({"env": "robossl/Reach-v0", "nuisances": "manip_object_size"}, r"has no nuisance manip_object_size; choose"),
        ({"module": ("no_such_module",)}, r"--module no_such_module cannot be imported"),
        ({"module": ("",)}, r"--module '' cannot be imported \(ValueError: Empty module name\); is it installed"),
        ({"module": (".x",)}, r"--module .x cannot be imported \(TypeError: .*\); is it installed"),
        ({"image_size": 33}, r"--image-size must be even"),
        ({"episodes": 0}, r"--episodes must be at least 1"),
        ({"episodes": None, "frames": 0}, r"--frames must be at least 1"),
        ({"frames": 9}, r"give either --episodes or --frames, got both"),
        ({"episodes": None}, r"give either --episodes or --frames, got neither"),
        ({"agent": "novelty"}, r"agent novelty acts on embeddings; name the encoder with --encoder RUN"),
        ({"encoder": Path("run")}, r"agent random uses no encoder; leave out --encoder, or use --agent nov"),
        ({"agent": "novelty", "encoder": Path("no_run")}, r"no_run is no encoder; pass a run folder"),
        ({"workers": 0}, r"--workers must be at least 1"),
        ({"seed": -1}, r"--seed must not be negative"),
        ({"fps": 0}, r"--fps must be 1 to 1000"),
        ({"max_steps": 0}, r"--max-steps must be at least 1"),
        ({"hang_seconds": 0.0}, r"--hang-seconds must be more than 0"),
    ],
)
def test_misuse_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"env": "dots/Dot-v0", "agent": "random", "episodes": 1, "workers": 1, **options}
    with pytest.raises(InputError, match=message) as caught:
        collect(out=tmp_path / "out", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_so_too(tmp_path: Path) -> None:
    process = start("--env", "dots/Blind-v0", "--episodes", "1", "--out", str(tmp_path / "out"))
    _, errors = process.communicate(timeout=120)
    assert (
        process.returncode == 2
        and errors.startswith("robossl: dots/Blind-v0 cannot render")
        and errors.count("\n") == 1
    )


def test_an_interrupt_leaves_a_collection_that_goes_on(tmp_path: Path) -> None:
    argv = ["--env", "dots/Slow-v0", "--agent", "random", "--episodes", "50", "--workers", "1"]
    process = start(*argv, "--out", str(tmp_path / "o"))
    while not list((tmp_path / "o").glob("meta/episodes/*/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "robossl: interrupted\n")
    assert readable(tmp_path / "o")
