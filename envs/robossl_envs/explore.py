"""The exploration loop: collect frames that are new to the encoder, train the encoder on all frames, repeat.

Each round has three steps. First, an agent such as `novelty`, which acts on the encoder's current embeddings, collects
frames. Then the frames are added to one store. Last, the encoder is trained on the whole store. Only the encoder passes
from round to round; heads, optimizer and learning-rate schedule start anew. Each step can continue after an
interruption, so the loop can too.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from robossl.common.atomic_io import atomic_write, locked, raise_disk_full
from robossl.common.config import load
from robossl.common.counts import format_count
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.encoders.encoder import build_encoder, save_encoder
from robossl.encoders.encoder_files import read_about
from robossl.errors import InputError, ResourceError, RunInterrupted
from robossl.training.adapt import shorten_warmup
from robossl.training.next_steps import next_steps
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig
from robossl.training.run_folder import RunFolder
from robossl_envs.agents import needs_encoder
from robossl_envs.collect import collect
from robossl_envs.collection.settings import CollectionSettings

FILE = "loop.json"
# Round k of a loop with seed s uses the seed 1000 * s + k, so more rounds would use the seeds of another loop.
MAX_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The arguments that must stay the same when a loop continues. So must the pretraining configuration."""

    env: str
    agent: str
    frames: int
    image_size: int
    max_steps: int | None
    nuisances: str
    module: tuple[str, ...]


def explore_loop(
    config: Path,
    *,
    env: str,
    out: Path,
    rounds: int = 3,
    frames: int = 10_000,
    agent: str = "novelty",
    workers: int | None = None,
    image_size: int = 96,
    max_steps: int | None = None,
    nuisances: str = "",
    module: tuple[str, ...] = (),
    licence: str | None = None,
) -> str:
    """Alternate between collecting frames with an agent and pretraining an encoder on all frames collected so far.

    To continue an interrupted loop, or to add rounds, run the command again with the same arguments.

    Args:
        config: yaml file of the pretraining. Its number of steps is for one round. The loop sets its store and split.
        env: id of a registered gymnasium environment, such as robossl/Push-v0.
        out: folder of the loop. It holds start/encoder, store, and for every round K round_K/frames and round_K/run.
        rounds: number of rounds.
        frames: number of frames to collect in a round; the last episode is completed.
        agent: the agent that acts. novelty seeks frames that are new to the encoder; see also `robossl collect`.
        workers: number of worker processes for collecting and ingesting. none: one per available CPU.
        image_size: shorter side of the frames in pixels, an even number.
        max_steps: largest number of steps in an episode. none: the environment's own limit.
        nuisances: nuisance factors to vary: NAME,NAME or all. Each gets a new random strength in every episode.
        module: packages to import first because they register environments.
        licence: licence of the frames, stated in the encoder's card.

    Raises:
        InputError: the arguments do not fit together, or differ from those of the loop in `out`.
        ResourceError: the disk is full, too many attempts failed, or the loop was stopped; all results are kept.
    """
    base = _without_knn(load(config, RunConfig))
    base, remarks = shorten_warmup(base)
    for remark in remarks:
        print(remark, flush=True)
    settings = LoopSettings(env, agent, frames, image_size, max_steps, nuisances, tuple(module))
    _check(base, settings, rounds)
    with locked(out, "exploration loop"), raise_disk_full(out):
        _claim(out, base, settings)
        encoder, sources = _initial_encoder(base, out), list[Path]()
        for number in range(rounds):
            folder = out / f"round_{number}"
            print(f"round {number + 1} of {rounds}: {frames} frames by {agent}, the encoder is {encoder}", flush=True)
            sources.append(folder / "frames")
            _collect_round(sources[-1], settings, encoder, seed=MAX_ROUNDS * base.seed + number, workers=workers)
            run_config = _round_config(base, encoder, out / "store", number)
            encoder = folder / "run" / "encoder"
            if _is_done(encoder, base):
                RunFolder(folder / "run").claim(run_config, resume=True)
                continue
            ingest(sources, out=out / "store", short_side=image_size, licence=licence, workers=workers)
            _pretrain_round(run_config, folder / "run")
    lines = next_steps(encoder.parent, open_store(out / "store"))
    return f"{encoder} was trained in {format_count(rounds, 'round')}; next: " + "\n  ".join(lines)


def _check(base: RunConfig, settings: LoopSettings, rounds: int) -> None:
    if not 1 <= rounds <= MAX_ROUNDS:
        raise InputError(f"--rounds must be 1 to {MAX_ROUNDS}, got {rounds}")
    if settings.frames < 1:
        raise InputError(f"--frames must be at least 1, got {settings.frames}")
    CollectionSettings(settings.env, settings.agent, settings.image_size, max_steps=settings.max_steps).check()
    method = base.method.build(build_encoder(replace(base.encoder, init="random")))
    size = max(view.size for view in method.views())
    if size > settings.image_size:
        raise InputError(
            f"views of {size} px need frames of at least that size; got --image-size {settings.image_size}"
        )


def _without_knn(base: RunConfig) -> RunConfig:
    if base.knn:
        print("online kNN is off: collected frames have no labels", flush=True)
    return replace(base, knn=None)


def _claim(out: Path, base: RunConfig, settings: LoopSettings) -> None:
    """Save the loop's settings if no frames are collected yet; otherwise check that they equal the saved ones."""
    if (out / "round_0" / "frames").exists():
        kept = _read(out / FILE)
        now = json.loads(json.dumps(asdict(settings)))
        differing = [
            f"--{field.name.replace('_', '-')} {kept.get(field.name)}, not {now[field.name]}"
            for field in fields(settings)
            if kept.get(field.name) != now[field.name]
        ]
        if differing:
            raise InputError(f"{out} explores with {'; '.join(differing)}; use the same settings, or another --out")
        RunFolder(out).claim(base, resume=True)
        return
    if any(path.name not in (".lock", FILE, "config.yaml", "start") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and is not an exploration loop; choose another --out")
    (out / "config.yaml").unlink(missing_ok=True)
    shutil.rmtree(out / "start", ignore_errors=True)
    RunFolder(out).claim(base, resume=False)
    with atomic_write(out / FILE) as aside:
        aside.write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); choose another --out") from None


def _initial_encoder(base: RunConfig, out: Path) -> Path:
    """Return the folder of the encoder that starts the first round.

    The encoder is made once and kept on disk, so that a loop that continues uses the same encoder.
    """
    folder = out / "start" / "encoder"
    if not folder.exists():
        torch.manual_seed(base.seed)
        save_encoder(build_encoder(base.encoder), folder, extra={"method": None, "step": 0, "data": []})
    return folder


def _collect_round(frames: Path, settings: LoopSettings, encoder: Path, *, seed: int, workers: int | None) -> None:
    collect(
        env=settings.env,
        agent=settings.agent,
        frames=settings.frames,
        out=frames,
        encoder=encoder if needs_encoder(settings.agent) else None,
        workers=workers,
        image_size=settings.image_size,
        seed=seed,
        max_steps=settings.max_steps,
        nuisances=settings.nuisances,
        module=settings.module,
    )


def _round_config(base: RunConfig, encoder: Path, store: Path, number: int) -> RunConfig:
    return replace(
        base,
        data=replace(base.data, store=store, split=None),
        encoder=replace(base.encoder, init=str(encoder)),
        seed=MAX_ROUNDS * base.seed + number,
    )


def _is_done(encoder: Path, base: RunConfig) -> bool:
    return encoder.exists() and read_about(encoder)["extra"]["step"] == base.train.steps


def _pretrain_round(config: RunConfig, run: Path) -> None:
    try:
        pretrain(config, out=run, resume=(run / "config.yaml").exists())
    except RunInterrupted:
        raise ResourceError("stopped and saved; run the same command again to go on") from None
