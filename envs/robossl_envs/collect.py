"""Collect: play episodes of an environment in worker processes and write them as a LeRobotDataset v3.0."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import SeedSequence

from robossl.common.atomic_io import locked, raise_disk_full
from robossl.common.cpus import num_cpus
from robossl.common.progress import Progress
from robossl.encoders.inference import FrameEncoder, identity, load_encoder
from robossl.errors import InputError, ResourceError
from robossl_envs.agents import needs_encoder, resolve_agent
from robossl_envs.agents.agent import Learner
from robossl_envs.collection.crew import ActorPool
from robossl_envs.collection.environment import EnvDescription, Environment, open_env
from robossl_envs.collection.ledger import Ledger
from robossl_envs.collection.report import CollectionReport, CollectionSummary
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.todo import MAX_ATTEMPTS, EpisodeQueue
from robossl_envs.collection.trial import describe_in_process
from robossl_envs.collection.vector import LearnerPool
from robossl_envs.lerobot_layout import Layout
from robossl_envs.lerobot_v3 import LeRobotWriter

CAMERA = "observation.images.top"


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
    episodes (count, rnd, novelty) are an exception: their frames also depend on the number of workers, and they start
    to learn anew when a collection continues.

    Args:
        env: id of a registered gymnasium environment that renders rgb_array, such as robossl/Push-v0.
        agent: the agent that acts: random, pink, ornstein_uhlenbeck, count, rnd, novelty, expert or noisy_expert.
        episodes: number of episodes in the data set, earlier ones included. Give either this or --frames.
        frames: minimum number of frames in the data set, earlier ones included; the last episode is completed.
        out: folder of the data set.
        encoder: run folder, encoder folder or exported model; the agent novelty seeks frames that are new to it.
        workers: number of worker processes. none: one per available CPU.
        image_size: shorter side of the frames in pixels, an even number.
        fps: frame rate of the videos. none: the rate that the environment states.
        seed: seed of all random numbers.
        max_steps: largest number of steps in an episode. none: the environment's own limit.
        nuisances: nuisance factors to vary: NAME,NAME or all. Each gets a new random strength in every episode.
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
    # `_open_encoder` imports torch, which must happen before the environment makes a GL context.
    encode = _open_encoder(agent, encoder)
    if encode is not None:
        settings = replace(settings, encoder=hashlib.sha256(identity(encode.card).encode()).hexdigest()[:16])
    description = describe_in_process(settings, hang_seconds=hang_seconds)
    environment = open_env(settings)
    try:
        resolve_agent(agent).check(environment)
        with locked(out, "collection"), raise_disk_full(out):
            ledger = Ledger(out, settings)
            writer = LeRobotWriter(out, _layout(settings, description))
            ledger.open(writer)
            queue = _make_queue(ledger, episodes, frames, description.max_steps)
            workers = min(workers, max(1, len(queue)))
            pool = _make_pool(environment, settings, description, ledger.parts, workers, hang_seconds, encode)
            with Progress(unit="episodes") as progress:
                report = CollectionReport(progress, out)
                report.plan(settings, description, num_episodes=len(queue), workers=workers)
                progress.show("collect", 0, len(queue))
                _play(pool, queue, ledger, report, frames=frames, max_steps=description.max_steps)
                dropped, num_failures = len(ledger.dropped), queue.num_failures
                summary = CollectionSummary(writer.num_episodes, writer.num_frames, dropped, num_failures)
                report.result(summary)
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


def _open_encoder(agent: str, encoder: Path | None) -> FrameEncoder | None:
    needed = needs_encoder(agent)
    if needed and encoder is None:
        raise InputError(f"agent {agent} acts on embeddings; name the encoder with --encoder RUN")
    if encoder is not None and not needed:
        raise InputError(f"agent {agent} uses no encoder; leave out --encoder, or use --agent novelty")
    return None if encoder is None else load_encoder(encoder, outputs=("pooled",))


def _make_queue(ledger: Ledger, episodes: int | None, frames: int | None, max_steps: int) -> EpisodeQueue:
    """Return the episodes to play.

    If a number of frames was asked for, start with the fewest episodes that can be enough; `_play` adds more if needed.
    """
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
    report: CollectionReport,
    *,
    frames: int | None,
    max_steps: int,
) -> None:
    """Play the episodes of the queue and record every attempt; add episodes if there would be too few frames."""
    total = len(queue)
    for outcome in pool.run(queue):
        if outcome.reason:
            report.say(f"episode {outcome.number} failed: {outcome.reason}")
        if queue.settle(outcome):
            ledger.drop(outcome.number, outcome.reason)
            report.say(f"episode {outcome.number} dropped after {MAX_ATTEMPTS} attempts")
        elif not outcome.reason:
            ledger.finish(outcome.number, outcome.num_frames)
            report.advance(outcome.num_frames, total=total)
        while frames is not None and ledger.max_frames(queue.last, max_steps) < frames:
            queue.add(ledger.next_pending(queue.last))
            total += 1
    ledger.commit(everything=True)


def _make_pool(
    environment: Environment,
    settings: CollectionSettings,
    description: EnvDescription,
    parts: Path,
    workers: int,
    hang_seconds: float,
    encode: FrameEncoder | None,
) -> ActorPool | LearnerPool:
    agent = resolve_agent(settings.agent)
    if not agent.learns:
        return ActorPool(settings, description, parts, workers=workers, hang_seconds=hang_seconds)
    rng = np.random.default_rng(SeedSequence((settings.seed,)))
    return LearnerPool(
        settings,
        description,
        parts,
        cast("type[Learner]", agent)(environment, rng, workers),
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


def _refuse_empty(ledger: Ledger, summary: CollectionSummary) -> None:
    if summary.num_dropped and not summary.num_episodes:
        number, why = max(ledger.dropped.items())
        raise ResourceError(
            f"no episode could be played, {summary.num_dropped} dropped; the last one, {number}, failed with {why}; "
            "fix the environment and run the same command again"
        )
