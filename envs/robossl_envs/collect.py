"""Collect: play episodes of an environment in worker processes and write them as a LeRobotDataset v3.0."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import SeedSequence

from robossl.counts import format_count
from robossl.cpus import num_cpus
from robossl.durable import full_disk_said, locked
from robossl.encode import Encode, identity, load_encode
from robossl.errors import InputError, ResourceError
from robossl.progress import Progress
from robossl_envs.agents import needs_encoder, resolve_agent
from robossl_envs.agents.agent import Learner
from robossl_envs.collection.crew import ActorPool
from robossl_envs.collection.environment import EnvDescription, Environment, open_env
from robossl_envs.collection.ledger import Ledger
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.todo import MAX_ATTEMPTS, EpisodeQueue
from robossl_envs.collection.trial import describe_in_process
from robossl_envs.collection.vector import LearnerPool
from robossl_envs.lerobot_layout import Layout
from robossl_envs.lerobot_v3 import LeRobotWriter

CAMERA = "observation.images.top"
# For the estimates of time and disk space, measured on our environments.
ENCODE_SECONDS_PER_PIXEL = 4e-8  # of one worker
BYTES_PER_PIXEL = 0.25


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """The size of a data set after a collection, and what failed."""

    num_episodes: int
    num_frames: int
    num_dropped: int  # episodes whose every attempt failed
    num_failures: int  # attempts of this call that crashed, hung or raised an error


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
    """Play episodes of an environment and write them as a LeRobot data set (LeRobotDataset v3.0).

    To continue an interrupted collection, or to extend it, run the command again with the same settings. The frames of
    an episode depend on the seed and the episode's number, not on the number of workers. Agents that learn across
    episodes (count, rnd, novelty) are the exception; they also forget what they learned when a collection continues.

    Args:
        env: id of a registered gymnasium environment that renders rgb_array, such as robossl/Push-v0.
        agent: the agent that acts: random, pink, ornstein_uhlenbeck, count, rnd, novelty, expert or noisy_expert.
        episodes: number of episodes in the data set, earlier ones included. Give either this or --frames.
        frames: least number of frames in the data set, earlier ones included; the last episode is completed.
        out: folder of the data set.
        encoder: run folder, encoder folder or exported model whose embeddings the agent novelty explores.
        workers: number of worker processes. none: one per available CPU.
        image_size: shorter side of the frames in pixels, an even number.
        fps: frame rate of the videos. none: the rate that the environment states.
        seed: seed of all random numbers.
        max_steps: largest number of steps in an episode. none: the environment's own limit.
        nuisances: nuisance factors to vary, NAME,NAME or all; each gets a new random strength in every episode.
        module: packages to import first because they register environments.
        hang_seconds: a worker that takes no step for this many seconds is replaced.

    Raises:
        InputError: the arguments do not fit together, or differ from those of the collection in `out`.
        ResourceError: the disk is full, too many attempts failed, no episode could be played, or another process
            writes to the same folder.
    """
    workers = num_cpus() if workers is None else workers
    _check(episodes, frames, workers, hang_seconds)
    chosen = tuple(name for name in nuisances.split(",") if name)
    settings = CollectionSettings(env, agent, image_size, fps, seed, max_steps, chosen, tuple(module))
    settings.check()
    encode = _open_encoder(agent, encoder)  # imports torch, which must come before any GL context
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
            workers = min(workers, max(1, len(queue)))
            pool: ActorPool | LearnerPool
            if resolve_agent(agent).learns:
                pool = _learner_pool(environment, settings, description, ledger.parts, workers, hang_seconds, encode)
            else:
                pool = ActorPool(settings, description, ledger.parts, workers=workers, hang_seconds=hang_seconds)
            with Progress(unit="episodes") as progress:
                _announce(progress, out, settings, description, queue, workers)
                num_frames = _play(pool, queue, ledger, progress, frames=frames, max_steps=description.max_steps)
                dropped = ledger.dropped
                summary = CollectionSummary(writer.num_episodes, writer.num_frames, len(dropped), queue.num_failures)
                _conclude(progress, out, summary, num_frames)
                _refuse_empty(ledger, summary)
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
        raise InputError(f"agent {agent} acts on embeddings; name the encoder with --encoder RUN")
    if encoder is not None and not needed:
        raise InputError(f"agent {agent} uses no encoder; leave out --encoder, or use --agent novelty")
    return None if encoder is None else load_encode(encoder, outputs=("pooled",))


def _make_queue(ledger: Ledger, episodes: int | None, frames: int | None, max_steps: int) -> EpisodeQueue:
    """Return the episodes to play; for a number of frames the fewest possible, to which `_play` adds."""
    if frames is None:
        assert episodes is not None
        return EpisodeQueue(ledger.pending(episodes))
    queue = EpisodeQueue(ledger.gaps())
    while ledger.max_frames(queue.last, max_steps) < frames:
        queue.add(ledger.next_pending(queue.last))
    return queue


def _play(
    pool: ActorPool | LearnerPool,
    queue: EpisodeQueue,
    ledger: Ledger,
    progress: Progress,
    *,
    frames: int | None,
    max_steps: int,
) -> int:
    """Play the queue, settle every attempt and return the frames played; add episodes if some ended early."""
    done, total, num_frames = 0, len(queue), 0
    progress.show("collect", done, total)
    for outcome in pool.run(queue):
        if outcome.reason:
            progress.say(f"episode {outcome.number} failed: {outcome.reason}")
        if queue.settle(outcome):
            ledger.drop(outcome.number, outcome.reason)
            progress.say(f"episode {outcome.number} dropped after {MAX_ATTEMPTS} attempts")
        elif not outcome.reason:
            ledger.finish(outcome.number, outcome.num_frames)
            done, num_frames = done + 1, num_frames + outcome.num_frames
            per_s = f"{num_frames / progress.seconds:.0f} frames/s"
            line = "collect: {done} of {total} episodes, " + per_s + ", {minutes_left:.1f} min left"
            progress.show("collect", done, total, line=line)
        while frames is not None and ledger.max_frames(queue.last, max_steps) < frames:
            queue.add(ledger.next_pending(queue.last))
            total += 1
    ledger.commit(everything=True)
    return num_frames


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
    """Print the plan with its estimated time and disk space."""
    if not len(queue):
        progress.say(f"{out} already holds every episode")
        return
    num_frames = len(queue) * description.max_steps
    pixels = description.height * description.width
    seconds = num_frames * (description.step_seconds + pixels * ENCODE_SECONDS_PER_PIXEL) / workers
    free = shutil.disk_usage(out).free
    progress.say(
        f"{format_count(len(queue), 'episode')} of {settings.env} by {settings.agent}, at most {description.max_steps} "
        f"steps each, {description.width}x{description.height} at {description.frames_per_s} fps: up to {num_frames} "
        f"frames, {seconds / 60:.1f} min with {format_count(workers, 'worker')}, "
        f"{num_frames * pixels * BYTES_PER_PIXEL / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free in {out}"
    )


def _conclude(progress: Progress, out: Path, summary: CollectionSummary, num_frames: int) -> None:
    progress.say(
        f"done in {progress.seconds:.0f} s: {format_count(num_frames, 'new frame')} "
        f"({num_frames / progress.seconds:.0f} frames/s); {out} holds "
        f"{format_count(summary.num_episodes, 'episode')}, {format_count(summary.num_frames, 'frame')}; "
        f"{format_count(summary.num_failures, 'attempt')} failed, "
        f"{format_count(summary.num_dropped, 'episode')} dropped"
    )


def _refuse_empty(ledger: Ledger, summary: CollectionSummary) -> None:
    if summary.num_dropped and not summary.num_episodes:
        number, why = max(ledger.dropped.items())
        raise ResourceError(
            f"no episode could be played, {summary.num_dropped} dropped; the last one, {number}, failed with {why}; "
            "fix the environment and run the same command again"
        )
