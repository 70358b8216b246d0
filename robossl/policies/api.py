"""`robossl.transfer`: measure whether encoders help policies, clean and under nuisances."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from robossl.common.arguments import spelled
from robossl.common.atomic_io import check_folder, locked, write_text
from robossl.common.checks import check_range
from robossl.common.cpus import num_cpus
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.encoders.inference import check_device
from robossl.errors import InputError
from robossl.policies.document import to_json
from robossl.policies.entrants import EntrantOptions, check_encoders, make_entrants
from robossl.policies.kept import KeptWork
from robossl.policies.nuisances import check_nuisances
from robossl.policies.page import write_page
from robossl.policies.result import TransferResult, TransferSettings
from robossl.policies.run import Measurement, conditions_of, measure
from robossl.policies.simulator import open_simulator


def transfer(
    encoders: StrPath | Sequence[StrPath],
    *,
    env: str,
    out: StrPath,
    demos: int = 20,
    seeds: int = 3,
    head: str = "mlp",
    tune: Literal["frozen", "last", "all"] = "frozen",
    factors: Sequence[str] = (),
    strengths: Sequence[int] = (3,),
    rollouts: int = 40,
    proprioception: bool = False,
    stack: int = 1,
    action_noise: float = 2.0,
    steps: int = 4000,
    network_steps: int = 1000,
    image_size: int = 96,
    workers: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    module: Sequence[str] = (),
    token: StrPath | None = None,
    ca: StrPath | None = None,
) -> TransferResult:
    """Train policies on an expert's demonstrations with each encoder, and measure their success in new scenes.

    The same is measured for controls: the true state, the robot's own state, random weights of each backbone, pooled
    pixels, and a small ConvNet from scratch. An encoder helps if it is better than these. A run that was stopped goes
    on if it is called again; encoders, factors, strengths and seeds can be added.

    Args:
        encoders: One or several encoders: what `load_encoder` takes, or `random:NAME` for a backbone with random
            weights.
        env: Id of an environment with a scripted expert, such as robossl/Reach-v0.
        out: Folder for the result (transfer.json), its page (index.html), films and the finished pieces.
        demos: Number of successful demonstrations for each policy.
        seeds: Number of policies of each row; each has its own demonstrations and initial weights.
        head: How a policy reads the features: mlp (pooled), keypoints or attention (feature map).
        tune: Keep the encoder frozen, or train its last stage or all of it with the policy.
        factors: Nuisance factors of the environment, or photometric factors of the probes, such as hue. Without any,
            only the clean scenes are played.
        strengths: Strengths of the factors, 1 (mild) to 5.
        rollouts: Number of scenes that each policy is rolled out in; the same for all policies.
        proprioception: Whether policies also get the robot's own state.
        stack: Number of frames that a policy sees at once.
        action_noise: Standard deviation of the noise on the expert's actions, as a share of half their range. Its
            labels are the actions without noise. Noise shows the policy what to do off the expert's path.
        steps: Training steps of a policy on frozen features or on a state.
        network_steps: Training steps of a policy that trains a network too.
        image_size: Shorter side of the frames in pixels.
        workers: Number of processes that play the environment. By default, one for each available CPU.
        device: cpu, cuda or cuda:N, for encoders and policies.
        seed: The first seed; policies have this one and those after it.
        module: Packages to import first because they register environments.
        token: File with the token of a server.
        ca: PEM file of the authority that signed the certificate of a server.

    Returns:
        The result. It prints as a table; `rows` has every score with its interval.

    Raises:
        InputError: an encoder, environment, factor, head or number cannot be used, or `out` holds another measurement.
        ResourceError: a worker or a server does not answer, or the disk is full. Finished pieces are kept.

    Example:
        >>> import robossl
        >>> result = robossl.transfer("runs/tiny", env="robossl/Reach-v0", out="transfer/tiny", demos=2, seeds=1,
        ...                           rollouts=2, steps=20, network_steps=2, workers=1)
        2 demonstrations for each seed: ...
        >>> [row.name for row in result.rows][:3]
        ['tiny', 'random test_resnet', 'pooled pixels']
    """
    given = locals()
    sources = (
        (os.fspath(encoders),)
        if isinstance(encoders, str | os.PathLike)
        else tuple(os.fspath(each) for each in encoders)
    )
    command = spelled(transfer, {**given, "encoders": sources, "out": os.fspath(out)}, prog="robossl transfer")
    settings = TransferSettings(
        env=env,
        demos=demos,
        action_noise=action_noise,
        head=head,
        tune=tune,
        proprioception=proprioception,
        stack=stack,
        steps=steps,
        network_steps=network_steps,
        rollouts=rollouts,
        image_size=image_size,
        seed=seed,
    )
    workers = num_cpus() if workers is None else workers
    check_range(0, action_noise=action_noise)
    check_range(1, seeds=seeds, rollouts=rollouts, stack=stack, steps=steps, network_steps=network_steps)
    check_range(1, 2000, demos=demos)
    check_range(1, workers=workers)
    check_range(0, 100_000 - seeds, seed=seed)
    check_device(device)
    options = EntrantOptions(head, tune, proprioception, device, _path(token), _path(ca))
    check_encoders(sources, options)
    folder = Path(out)
    check_folder(folder, option="--out")
    with (
        locked(folder, "measurement"),
        open_simulator(env, workers=workers, image_size=image_size, module=module) as simulator,
        Progress(unit="episodes") as progress,
    ):
        check_nuisances(simulator, env, factors, strengths)
        has_own_state = simulator.proprioception_dim > 0
        if proprioception and not has_own_state:
            raise InputError(f"{env} does not tell the robot's own state (agent_state); leave out --proprioception")
        entrants = make_entrants(sources, options, has_own_state=has_own_state)
        kept = KeptWork(folder, settings)
        conditions = conditions_of(factors, strengths)
        total = len(entrants) * seeds * len(conditions) * rollouts
        task = Measurement(settings, seeds, conditions, simulator, kept, device, progress, total)
        result = measure(task, entrants, command=command)
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in task.seconds.items())
        progress.say(f"time: {parts}, in all {progress.seconds:.0f} s")
        write_text(folder / "transfer.json", to_json(result))
        write_page(result, folder)
        progress.say(f"look at {folder / 'index.html'}; {folder / 'transfer.json'} has every figure")
    return result


def _path(given: StrPath | None) -> Path | None:
    return None if given is None else Path(given)
