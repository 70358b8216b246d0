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
from robossl.encode import Encode, identity, load_encode
from robossl.errors import InputError, ResourceError
from robossl_envs.agents import needs_encoder, resolve_agent
from robossl_envs.agents.agent import Learner
from robossl_envs.collection.crew import ActorPool
from robossl_envs.collection.environment import EnvDescription, Environment, open_env
from robossl_envs.collection.ledger import Ledger
from robossl_envs.collection.progress import Progress
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.todo import MAX_ATTEMPTS, EpisodeQueue
from robossl_envs.collection.trial import describe_in_process
from robossl_envs.collection.vector import LearnerPool
from robossl_envs.lerobot_layout import Layout
from robossl_envs.lerobot_v3 import LeRobotWriter

CAMERA = "observation.images.top"
ENCODE_SECONDS_PER_PIXEL = 4e-8  # of one worker, for the estimate of time
BYTES_PER_PIXEL = 0.25  # of a frame of our environments, for the estimate of disk space


@dataclass(frozen=True, slots=True)
class CollectionSummary:
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
) -> CollectionSummary:
    """Play episodes and write them as a LeRobotDataset v3.0; run again with the same arguments, it goes on.

    The frames of an episode depend on the seed and its number, not on the number of workers; agents that learn across
    episodes (count, rnd, novelty) excepted, which also begin anew when a collection goes on.

    Args:
        env: id of any registered gymnasium environment that renders rgb_array.
        agent: who acts; see robossl_envs.agents.AGENTS.
        episodes: how many, those already summary included.
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
    settings = CollectionSettings(env, agent, image_size, fps, seed, max_steps, chosen, tuple(module))
    settings.check()
    encode = _open_encoder(agent, encoder)  # torch must be imported before any GL context is made
    if encode is not None:
        settings = replace(settings, encoder=hashlib.sha256(identity(encode.card).encode()).hexdigest()[:16])
    description = describe_in_process(settings, hang_seconds=hang_seconds)
    environment = open_env(settings)
    try:
        resolve_agent(agent).check(environment)
        with locked(out, "collection"), full_disk_said(out):
            ledger = Ledger(out, settings)
            writer = LeRobotWriter(out, _layout(settings, description))
            ledger.open(writer)
            queue = _make_queue(ledger, episodes, frames, description.max_steps)
            num_workers = min(workers, max(1, len(queue)))
            pool: ActorPool | LearnerPool
            if resolve_agent(agent).learns:
                pool = _learner_pool(
                    environment, settings, description, ledger.parts, num_workers, hang_seconds, encode
                )
            else:
                pool = ActorPool(settings, description, ledger.parts, workers=num_workers, hang_seconds=hang_seconds)
            with Progress(len(queue)) as progress:
                _announce(progress, out, settings, description, queue, num_workers)
                _settle(pool, queue, ledger, progress, frames=frames, max_steps=description.max_steps)
                summary = CollectionSummary(
                    writer.num_episodes, writer.num_frames, len(ledger.dropped), queue.num_failures
                )
                _conclude(progress, out, summary)
                _refuse_nothing(ledger, summary)
                return summary
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


def _open_encoder(agent: str, encoder: Path | None) -> Encode | None:
    needed = needs_encoder(agent)
    if needed and encoder is None:
        raise InputError(f"agent {agent} acts on the embeddings of an encoder; add --encoder RUN")
    if encoder is not None and not needed:
        raise InputError(f"agent {agent} acts without an encoder; leave out --encoder, or use --agent novelty")
    return None if encoder is None else load_encode(encoder, outputs=("pooled",))


def _make_queue(ledger: Ledger, episodes: int | None, frames: int | None, max_steps: int) -> EpisodeQueue:
    """Episodes to play; for frames as many as are needed at least, and `_settle` adds to them."""
    if frames is None:
        assert episodes is not None
        return EpisodeQueue(ledger.pending(episodes))
    queue = EpisodeQueue(ledger.gaps())
    while ledger.max_frames(queue.last, max_steps) < frames:
        queue.add(ledger.next_pending(queue.last))
    return queue


def _settle(
    pool: ActorPool | LearnerPool,
    queue: EpisodeQueue,
    ledger: Ledger,
    progress: Progress,
    *,
    frames: int | None,
    max_steps: int,
) -> None:
    """Play, and account for every attempt; an episode that ended early may make another one needed."""
    for outcome in pool.run(queue):
        if outcome.reason:
            progress.say(f"episode {outcome.number} failed: {outcome.reason}")
        if queue.settle(outcome):
            ledger.drop(outcome.number, outcome.reason)
            progress.say(f"episode {outcome.number} dropped after {MAX_ATTEMPTS} attempts")
        elif not outcome.reason:
            ledger.finish(outcome.number, outcome.num_frames)
            progress.advance(outcome.num_frames)
        while frames is not None and ledger.max_frames(queue.last, max_steps) < frames:
            queue.add(ledger.next_pending(queue.last))
            progress.extend()
    ledger.commit(everything=True)


def _learner_pool(
    environment: Environment,
    settings: CollectionSettings,
    description: EnvDescription,
    parts: Path,
    workers: int,
    hang_seconds: float,
    encode: Encode | None,
) -> LearnerPool:
    rng = np.random.default_rng(SeedSequence((settings.seed,)))
    learner = cast("type[Learner]", resolve_agent(settings.agent))(environment, rng, workers)
    return LearnerPool(
        settings,
        description,
        parts,
        learner,
        environment.action_space,
        workers=workers,
        hang_seconds=hang_seconds,
        encode=encode,
    )


def _layout(settings: CollectionSettings, description: EnvDescription) -> Layout:
    return Layout(
        camera=CAMERA,
        height=description.height,
        width=description.width,
        frames_per_s=description.frames_per_s,
        columns=description.columns,
        robot_type=settings.env,
        task=settings.env,
    )


def _announce(
    progress: Progress,
    out: Path,
    settings: CollectionSettings,
    description: EnvDescription,
    queue: EpisodeQueue,
    workers: int,
) -> None:
    if not len(queue):
        progress.say(f"{out} already holds every episode")
        return
    num_frames = len(queue) * description.max_steps
    pixels = description.height * description.width
    seconds = num_frames * (description.step_seconds + pixels * ENCODE_SECONDS_PER_PIXEL) / workers
    free = shutil.disk_usage(out).free
    progress.say(
        f"{len(queue)} episodes of {settings.env} by {settings.agent}, {description.max_steps} steps at most, "
        f"{description.width}x{description.height} at {description.frames_per_s} fps: up to {num_frames} frames, "
        f"{seconds / 60:.1f} min with {workers} workers, {num_frames * pixels * BYTES_PER_PIXEL / 2**20:.0f} MiB of "
        f"{free / 2**20:.0f} MiB free in {out}"
    )


def _conclude(progress: Progress, out: Path, summary: CollectionSummary) -> None:
    progress.say(
        f"done in {progress.seconds:.0f} s: {progress.num_frames} new frames "
        f"({progress.num_frames / progress.seconds:.0f} frames/s); {out} holds {summary.num_episodes} episodes, "
        f"{summary.num_frames} frames; {summary.num_failures} attempts failed, "
        f"{summary.num_dropped} episodes dropped"
    )


def _refuse_nothing(ledger: Ledger, summary: CollectionSummary) -> None:
    if summary.num_dropped and not summary.num_episodes:
        number, why = max(ledger.dropped.items())
        raise ResourceError(
            f"no episode could be played, {summary.num_dropped} dropped, the last one, {number}, with {why}; "
            "fix the environment and run the same command again"
        )
