"""Measure: train a policy for each row and seed, roll it out under each condition, and keep each finished piece."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from robossl.common.progress import Progress
from robossl.policies.entrants import Entrant
from robossl.policies.films import FilmedPolicy
from robossl.policies.kept import KeptWork
from robossl.policies.nuisances import add_nuisance
from robossl.policies.policy import Policy, PolicyActor, PolicyInputs
from robossl.policies.result import CLEAN, TransferResult, TransferRow, TransferSettings
from robossl.policies.score import compare_rows, score_condition
from robossl.policies.simulator import Demonstrations, Rollout, Simulator
from robossl.policies.train import TrainedPolicy, make_policy, train_policy

FIRST_SCENE = 2**30  # seed of the first scene of the rollouts; those of demonstrations are smaller
SCENES_PER_SEED = 10_000  # demonstrations of different seeds are in different scenes
TRIES = 5  # scenes per demonstration; the expert may fail in some of them

Condition = tuple[str, int]


@dataclass(slots=True)
class Measurement:
    """One measurement that goes on: everything that `measure_row` needs.

    Args:
        settings: What the scores depend on.
        seeds: Number of policies of each row.
        conditions: Factor and strength of each column; the first is the clean scene.
        simulator: The environment.
        kept: The folder with the finished pieces.
        device: cpu or cuda.
        progress: Where progress is shown.
        total: Number of episodes in all, for the progress.
    """

    settings: TransferSettings
    seeds: int
    conditions: Sequence[Condition]
    simulator: Simulator
    kept: KeptWork
    device: str
    progress: Progress
    total: int
    seconds: dict[str, float] = field(default_factory=lambda: {"demonstrations": 0.0, "training": 0.0, "rollouts": 0.0})
    done: int = 0
    demos: dict[int, Demonstrations] = field(default_factory=dict)

    def advance(self, more: int) -> None:
        """Note that more episodes are done, and show how much is left."""
        self.done += more
        line = "{what}: {done} of {total} {unit}, {left} left"
        self.progress.show("rollouts", self.done, self.total, line=line)

    @property
    def scenes(self) -> tuple[int, ...]:
        """Seeds of the rollouts' scenes."""
        return tuple(range(FIRST_SCENE, FIRST_SCENE + self.settings.rollouts))


def conditions_of(factors: Sequence[str], strengths: Sequence[int]) -> list[Condition]:
    """Return the clean condition, then each factor at each strength."""
    return [(CLEAN, 0), *((factor, strength) for factor in factors for strength in strengths)]


def measure(task: Measurement, entrants: Sequence[Entrant], *, command: str) -> TransferResult:
    """Measure all rows, and compare encoders with controls.

    Raises:
        InputError: the expert fails too often, an environment fails, or features are not finite.
        ResourceError: a worker dies, a server does not answer, or the disk is full. Finished pieces are kept.
    """
    for number in range(task.seeds):
        task.demos[number] = _demonstrate(task, task.settings.seed + number)
    frames = [len(each.frames) for each in task.demos.values()]
    task.progress.say(f"{task.settings.demos} demonstrations for each seed: {', '.join(map(str, frames))} frames")
    rows = [_measure_row(task, entrant) for entrant in entrants]
    controls = [row for row in rows if row.kind == "control"]
    return TransferResult(
        settings=task.settings,
        seeds=task.seeds,
        frames=tuple(frames),
        failed_demos=tuple(each.num_failed for each in task.demos.values()),
        scenes=task.scenes,
        rows=tuple(_compared(row, controls) for row in rows),
        command=command,
    )


def _compared(row: TransferRow, controls: Sequence[TransferRow]) -> TransferRow:
    return replace(row, differences=compare_rows(row.scores, controls)) if row.kind == "encoder" else row


def _demonstrate(task: Measurement, seed: int) -> Demonstrations:
    started, settings = time.monotonic(), task.settings
    first = seed * SCENES_PER_SEED
    scenes = range(first, first + TRIES * settings.demos)
    found = task.simulator.demonstrate(scenes, episodes=settings.demos, noise=settings.action_noise)
    task.seconds["demonstrations"] += time.monotonic() - started
    return found


def _measure_row(task: Measurement, entrant: Entrant) -> TransferRow:
    by_seed = [_measure_seed(task, entrant, number) for number in range(task.seeds)]
    return TransferRow(
        name=entrant.name,
        kind=entrant.kind,
        source=entrant.source,
        digest=entrant.digest,
        sha256=entrant.sha256,
        losses=tuple(loss for loss, _ in by_seed),
        scores=tuple(
            score_condition(*condition, [rollouts[at] for _, rollouts in by_seed])
            for at, condition in enumerate(task.conditions)
        ),
        differences=(),
    )


def _measure_seed(task: Measurement, entrant: Entrant, number: int) -> tuple[float, list[list[Rollout]]]:
    """Return the loss of one policy, and its rollouts under each condition; what is kept is not done again."""
    seed = task.settings.seed + number
    place = task.kept.place(entrant.name, entrant.digest, seed)
    read = partial(task.kept.read_rollouts, place, scenes=task.scenes)
    found = [read(factor, strength) for factor, strength in task.conditions]
    about = task.kept.read_about(place)
    task.advance(sum(len(each) for each in found if each is not None))
    if about is None or None in found:
        inputs = entrant.inputs(seed)
        policy, loss = _policy(task, entrant, inputs, number)
        actor = PolicyActor(policy, inputs, stack=task.settings.stack, device=task.device)
        for at, (factor, strength) in enumerate(task.conditions):
            if found[at] is None:
                started = time.monotonic()
                act, strengths = add_nuisance(actor, task.simulator, factor, strength)
                filmed = FilmedPolicy(act)
                played = task.simulator.play(filmed, scenes=task.scenes, strengths=strengths, watch=task.advance)
                seconds = time.monotonic() - started
                task.seconds["rollouts"] += seconds
                filmed.write(place, f"{factor}{strength}", played)
                task.kept.write_rollouts(place, factor, strength, played, seconds)
                found[at] = played
    else:
        loss = float(about["loss"])
    return loss, [each for each in found if each is not None]


def _policy(task: Measurement, entrant: Entrant, inputs: PolicyInputs, number: int) -> tuple[Policy, float]:
    """Return one policy and its loss: the one that is kept, or else a newly trained one."""
    settings, demos, seed = task.settings, task.demos[number], task.settings.seed + number
    place = task.kept.place(entrant.name, entrant.digest, seed)
    about = task.kept.read_about(place)
    if about is not None:
        kept = TrainedPolicy(make_policy(inputs, demos, stack=settings.stack).to(task.device), float(about["loss"]))
        task.kept.load_policy(place, kept)
        return kept.policy, kept.loss
    started = time.monotonic()
    steps = settings.network_steps if entrant.trains_network else settings.steps
    trained = train_policy(inputs, demos, stack=settings.stack, steps=steps, seed=seed, device=task.device)
    seconds = time.monotonic() - started
    task.seconds["training"] += seconds
    low, high = task.simulator.action_range
    names = {"state_names": task.simulator.proprioception_names, "action_low": low, "action_high": high}
    task.kept.write_policy(place, trained, {"seconds": round(seconds, 2), "steps": steps, **names})
    task.progress.say(f"{entrant.name}, seed {seed}: {steps} steps in {seconds:.0f} s, loss {trained.loss:.4f}")
    return trained.policy, trained.loss
