"""Collect: play episodes of an environment in worker processes and write them as a LeRobotDataset v3.0, restartably."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import SeedSequence

from robossl.cpus import num_cpus
from robossl.durable import full_disk_said, locked
from robossl.encode import FrameEncoder, identity, load_encoder
from robossl.errors import InputError, ResourceError
from robossl_envs.agents import needs_encoder, resolve_agent
from robossl_envs.agents.agent import Learner
from robossl_envs.collection.crew import Crew
from robossl_envs.collection.environment import Described, Environment, open_env
from robossl_envs.collection.ledger import Ledger
from robossl_envs.collection.progress import Progress
from robossl_envs.collection.settings import Settings
from robossl_envs.collection.todo import MAX_ATTEMPTS, Todo
from robossl_envs.collection.trial import described_apart
from robossl_envs.collection.vector import Ensemble
from robossl_envs.lerobot_layout import Layout
from robossl_envs.lerobot_v3 import LeRobotWriter

CAMERA = "observation.images.top"
ENCODE_SECONDS_PER_PIXEL = 4e-8  # of one worker, for the estimate of time
BYTES_PER_PIXEL = 0.25  # of a frame of our environments, for the estimate of disk space


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection came to."""

    num_episodes: int
    num_frames: int
    num_dropped: int  # episodes that failed every attempt
    num_failures: int  # attempts of this call that crashed, hung or raised


def collect(
    *,
    env: str,
    agent: str = "random",
    episodes: int | None = None,
    frames: int | None = None,
    out: Path,
    encoder: Path | None = None,
    workers: int | None = None,
    image_size: int = 96,
    fps: int | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    nuisances: str = "",
    module: tuple[str, ...] = (),
    hang_seconds: float = 60.0,
) -> Collected:
    """Play episodes and write them as a LeRobotDataset v3.0; run again with the same arguments, it goes on.

    The frames of an episode depend on the seed and its number, not on the number of workers; agents that learn across
    episodes (count, rnd, novelty) excepted, which also begin anew when a collection goes on.

    Args:
        env: id of any registered gymnasium environment that renders rgb_array.
        agent: who acts; see robossl_envs.agents.AGENTS.
        episodes: how many, those already collected included.
        frames: instead of episodes: the fewest whole episodes that make so many frames.
        out: the data set, a folder.
        encoder: whose embeddings the agent novelty acts on: a run folder, an encoder folder or an exported model.
        workers: processes, by default one a CPU that this process may use.
        image_size: pixels of the shorter side of frames.
        fps: frames per second of the videos, by default what the environment says.
        seed: of everything that is drawn.
        max_steps: end of an episode, by default the environment's.
        nuisances: factors whose strength is drawn anew each episode, NAME,NAME or all.
        module: packages to import first because they register environments.
        hang_seconds: a worker that makes no step for so long is replaced.

    Raises:
        InputError: environment, agent and the other arguments do not fit together, or not those of an earlier run.
        ResourceError: the disk is full, attempts fail one after another, no episode could be played, or another run
            writes to the same folder.
    """
    workers = num_cpus() if workers is None else workers
    _check(episodes, frames, workers, hang_seconds)
    chosen = tuple(name for name in nuisances.split(",") if name)
    settings = Settings(env, agent, image_size, fps, seed, max_steps, chosen, tuple(module))
    settings.check()
    encode = _open_encoder(agent, encoder)  # torch must be imported before any GL context is made
    if encode is not None:
        settings = replace(settings, encoder=hashlib.sha256(identity(encode.card).encode()).hexdigest()[:16])
    described = described_apart(settings, hang_seconds=hang_seconds)
    environment = open_env(settings)
    try:
        resolve_agent(agent).check(environment)
        with locked(out, "collection"), full_disk_said(out):
            ledger = Ledger(out, settings)
            writer = LeRobotWriter(out, _layout(settings, described))
            ledger.open(writer)
            todo = _todo(ledger, episodes, frames, described.max_steps)
            num_workers = min(workers, max(1, len(todo)))
            crew: Crew | Ensemble
            if resolve_agent(agent).learns:
                crew = _ensemble(environment, settings, described, ledger.parts, num_workers, hang_seconds, encode)
            else:
                crew = Crew(settings, described, ledger.parts, workers=num_workers, hang_seconds=hang_seconds)
            with Progress(len(todo)) as progress:
                _announce(progress, out, settings, described, todo, num_workers)
                _settle(crew, todo, ledger, progress, frames=frames, max_steps=described.max_steps)
                collected = Collected(writer.num_episodes, writer.num_frames, len(ledger.dropped), todo.num_failures)
                _conclude(progress, out, collected)
                _refuse_nothing(ledger, collected)
                return collected
    finally:
        environment.close()


def _check(episodes: int | None, frames: int | None, workers: int, hang_seconds: float) -> None:
    if (episodes is None) == (frames is None):
        raise InputError(f"give either --episodes or --frames, got {'neither' if frames is None else 'both'}")
    for name, value in (("episodes", episodes), ("frames", frames), ("workers", workers)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if not hang_seconds > 0:
        raise InputError(f"--hang-seconds must be more than 0, got {hang_seconds:g}")


def _open_encoder(agent: str, encoder: Path | None) -> FrameEncoder | None:
    needed = needs_encoder(agent)
    if needed and encoder is None:
        raise InputError(f"agent {agent} acts on the embeddings of an encoder; add --encoder RUN")
    if encoder is not None and not needed:
        raise InputError(f"agent {agent} acts without an encoder; leave out --encoder, or use --agent novelty")
    return None if encoder is None else load_encoder(encoder, outputs=("pooled",))


def _todo(ledger: Ledger, episodes: int | None, frames: int | None, max_steps: int) -> Todo:
    """Episodes to play; for frames as many as are needed at least, and `_settle` adds to them."""
    if frames is None:
        assert episodes is not None
        return Todo(ledger.todo(episodes))
    todo = Todo(ledger.gaps())
    while ledger.most_frames(todo.last, max_steps) < frames:
        todo.add(ledger.following(todo.last))
    return todo


def _settle(
    crew: Crew | Ensemble, todo: Todo, ledger: Ledger, progress: Progress, *, frames: int | None, max_steps: int
) -> None:
    """Play, and account for every attempt; an episode that ended early may make another one needed."""
    for outcome in crew.run(todo):
        if outcome.reason:
            progress.say(f"episode {outcome.number} failed: {outcome.reason}")
        if todo.settle(outcome):
            ledger.drop(outcome.number, outcome.reason)
            progress.say(f"episode {outcome.number} dropped after {MAX_ATTEMPTS} attempts")
        elif not outcome.reason:
            ledger.finish(outcome.number, outcome.num_frames)
            progress.advance(outcome.num_frames)
        while frames is not None and ledger.most_frames(todo.last, max_steps) < frames:
            todo.add(ledger.following(todo.last))
            progress.extend()
    ledger.commit(everything=True)


def _ensemble(
    environment: Environment,
    settings: Settings,
    described: Described,
    parts: Path,
    workers: int,
    hang_seconds: float,
    encode: FrameEncoder | None,
) -> Ensemble:
    rng = np.random.default_rng(SeedSequence((settings.seed,)))
    learner = cast("type[Learner]", resolve_agent(settings.agent))(environment, rng, workers)
    return Ensemble(
        settings,
        described,
        parts,
        learner,
        environment.action_space,
        workers=workers,
        hang_seconds=hang_seconds,
        encode=encode,
    )


def _layout(settings: Settings, described: Described) -> Layout:
    return Layout(
        camera=CAMERA,
        height=described.height,
        width=described.width,
        frames_per_s=described.frames_per_s,
        columns=described.columns,
        robot_type=settings.env,
        task=settings.env,
    )


def _announce(
    progress: Progress, out: Path, settings: Settings, described: Described, todo: Todo, workers: int
) -> None:
    if not len(todo):
        progress.say(f"{out} already holds every episode")
        return
    num_frames = len(todo) * described.max_steps
    pixels = described.height * described.width
    seconds = num_frames * (described.step_seconds + pixels * ENCODE_SECONDS_PER_PIXEL) / workers
    free = shutil.disk_usage(out).free
    progress.say(
        f"{len(todo)} episodes of {settings.env} by {settings.agent}, {described.max_steps} steps at most, "
        f"{described.width}x{described.height} at {described.frames_per_s} fps: up to {num_frames} frames, "
        f"{seconds / 60:.1f} min with {workers} workers, {num_frames * pixels * BYTES_PER_PIXEL / 2**20:.0f} MiB of "
        f"{free / 2**20:.0f} MiB free in {out}"
    )


def _conclude(progress: Progress, out: Path, collected: Collected) -> None:
    progress.say(
        f"done in {progress.seconds:.0f} s: {progress.num_frames} new frames "
        f"({progress.num_frames / progress.seconds:.0f} frames/s); {out} holds {collected.num_episodes} episodes, "
        f"{collected.num_frames} frames; {collected.num_failures} attempts failed, "
        f"{collected.num_dropped} episodes dropped"
    )


def _refuse_nothing(ledger: Ledger, collected: Collected) -> None:
    if collected.num_dropped and not collected.num_episodes:
        number, why = max(ledger.dropped.items())
        raise ResourceError(
            f"no episode could be played, {collected.num_dropped} dropped, the last one, {number}, with {why}; "
            "mend the environment and run the same command again"
        )
