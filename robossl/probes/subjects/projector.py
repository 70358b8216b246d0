"""What a method's loss sees: the output of its projector, `projector:RUN`, beside the feature that is exported.

SimCLR's table 3 (arXiv:2002.05709) in one comparison: invariance that is forced on g(h) is less forced on h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from jaxtyping import Float, UInt8
from numpy import ndarray
from safetensors.torch import load_file
from torch import nn

from robossl.checkpoint import checkpoints
from robossl.config import from_mapping
from robossl.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods import resolve_method
from robossl.probes.subjects.ours import open_ours
from robossl.probes.subjects.probed import Output, Probed, digest_of
from robossl.weights import weights_digest


def open_projector(source: str, *, device: str, outputs: Sequence[Output]) -> Probed:
    """`projector:RUN`: the pooled feature of a run folder through the head of its newest checkpoint.

    Raises:
        InputError: no run with a checkpoint, or a method whose loss does not see the pooled feature through one head.
    """
    run = run_of(source)
    projector = load_projector(run).to(device)
    base = open_ours(str(run), device=device, outputs=("pooled",))
    embedded = project(projector, np.zeros((2, base.about.dim), np.float32), device)

    def embed(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        return {"pooled": project(projector, base.embed(frames)["pooled"], device)}

    digest = digest_of("projector", base.digest, weights_digest(projector.state_dict()))
    about = replace(
        base.about,
        name=f"{base.about.name} projector",
        source=source,
        sha256=digest,
        layer=f"output of the projector on {base.about.layer}",
        dim=embedded.shape[1],
    )
    return replace(base, about=about, digest=digest, embed=embed, outputs=("pooled",))


def run_of(source: str) -> Path:
    """The run folder of `projector:RUN`.

    Raises:
        InputError: there is none.
    """
    run = Path(source.removeprefix("projector:"))
    if not (run / "config.yaml").is_file():
        raise InputError(f"no run at {run}; pass projector:RUN, the folder that `robossl pretrain` wrote")
    return run


def load_projector(run: Path) -> nn.Module:
    """The trained head between the pooled feature and the loss, in eval mode.

    Raises:
        InputError: no checkpoint, or a method without such a head.
    """
    saved = checkpoints(run / "checkpoints")
    if not saved:
        raise InputError(f"{run} has no checkpoint, and its projector is kept there alone; train it again")
    trained = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    name = trained["method"].pop("name")
    config = from_mapping(trained["method"], resolve_method(name))
    encoder = from_mapping(trained["encoder"] | {"init": "random"}, EncoderConfig)
    with torch.random.fork_rng(devices=[]):
        method = config.build(build_encoder(encoder))
    projector = getattr(method, "projector", None)
    if not isinstance(projector, nn.Module) or any(isinstance(layer, nn.Conv2d) for layer in projector.modules()):
        raise InputError(f"{name} has no projector of the pooled feature; probe {run} itself")
    weights = load_file(saved[-1] / "method.safetensors")
    projector.load_state_dict(
        {name.removeprefix("projector."): value for name, value in weights.items() if name.startswith("projector.")}
    )
    return projector.eval()


@torch.inference_mode()
def project(projector: nn.Module, pooled: Float[ndarray, "b c"], device: str) -> Float[ndarray, "b d"]:
    """The head's output; several spaces are laid side by side."""
    out: ndarray = projector(torch.from_numpy(pooled).to(device)).flatten(1).cpu().numpy()
    return out
