"""`robossl transfer`: measure whether encoders help policies, and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def transfer(
    *,
    encoders: tuple[str, ...],
    env: str,
    out: Path,
    demos: int = 20,
    seeds: int = 3,
    head: str = "mlp",
    tune: Literal["frozen", "last", "all"] = "frozen",
    factors: tuple[str, ...] = (),
    strengths: tuple[int, ...] = (3,),
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
    module: tuple[str, ...] = (),
    token: Path | None = None,
    ca: Path | None = None,
) -> str:
    """Train policies on an expert's demonstrations with each encoder, and measure their success in new scenes.

    The same is measured for controls: the true state, the robot's own state, random weights of each backbone, pooled
    pixels, and a small ConvNet from scratch. A run that was stopped goes on if it is started again; encoders, factors,
    strengths and seeds can be added.

    Args:
        encoders: Run folders, encoder folders, exported models, grpc://HOST:PORT/MODEL, timm:NAME, pip:NAME, or
            random:NAME for a backbone with random weights.
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
        proprioception: Give policies the robot's own state too.
        stack: Number of frames that a policy sees at once.
        action_noise: Standard deviation of the noise on the expert's actions, as a share of half their range. The
            labels are the actions without noise.
        steps: Training steps of a policy on frozen features or on a state.
        network_steps: Training steps of a policy that trains a network too.
        image_size: Shorter side of the frames in pixels.
        workers: Number of processes that play the environment. Default: one for each available CPU.
        device: cpu, cuda or cuda:N, for encoders and policies.
        seed: The first seed; policies have this one and those after it.
        module: Packages to import first because they register environments.
        token: File with the token of a server.
        ca: PEM file of the authority that signed the certificate of a server.

    Raises:
        InputError: an encoder, environment, factor, head or number cannot be used, or `out` holds another measurement.
    """
    from robossl.policies import api

    return str(
        api.transfer(
            encoders,
            env=env,
            out=out,
            demos=demos,
            seeds=seeds,
            head=head,
            tune=tune,
            factors=factors,
            strengths=strengths,
            rollouts=rollouts,
            proprioception=proprioception,
            stack=stack,
            action_noise=action_noise,
            steps=steps,
            network_steps=network_steps,
            image_size=image_size,
            workers=workers,
            device=device,
            seed=seed,
            module=module,
            token=token,
            ca=ca,
        )
    )
