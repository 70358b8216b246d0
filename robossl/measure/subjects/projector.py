"""Subject `projector:RUN`: the output of a run's projector, which the loss sees, instead of the exported feature.

It allows comparisons as in table 3 of SimCLR (arXiv:2002.05709). The loss makes the projector's output g(h) invariant.
The feature h is less invariant.
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

from robossl.common.config import from_mapping
from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.encoders.weights import weights_digest
from robossl.errors import InputError
from robossl.measure.subjects.encoders import open_encoder
from robossl.measure.subjects.subject import Output, Subject, digest_of
from robossl.methods import resolve_method


def open_projector(source: str, *, device: str, outputs: Sequence[Output]) -> Subject:
    """Open `projector:RUN`: apply the projector of the run's newest checkpoint to the run's pooled feature.

    Raises:
        InputError: the run or its checkpoint is missing, its method has no projector of the pooled feature, or "cls"
            is among the outputs.
    """
    if "cls" in outputs:
        raise InputError(f"{source} is the projector of the pooled feature and has no output 'cls'; choose pooled")
    run = run_of(source)
    projector = load_projector(run).to(device)
    base = open_encoder(str(run), device=device, outputs=("pooled",))
    embedded = project(projector, np.zeros((2, base.info.dim), np.float32), device)

    def embed(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        return {"pooled": project(projector, base.embed(frames)["pooled"], device)}

    digest = digest_of("projector", base.digest, weights_digest(projector.state_dict()))
    info = replace(
        base.info,
        name=f"{base.info.name} projector",
        source=source,
        sha256=digest,
        layer=f"output of the projector on {base.info.layer}",
        dim=embedded.shape[1],
    )
    return replace(base, info=info, digest=digest, embed=embed, outputs=("pooled",))


def run_of(source: str) -> Path:
    """Return the run folder of `projector:RUN`.

    Raises:
        InputError: the folder is not a run.
    """
    run = Path(source.removeprefix("projector:"))
    if not (run / "config.yaml").is_file():
        raise InputError(f"no run at {run}; pass projector:RUN, the folder that `robossl pretrain` wrote")
    return run


def load_projector(run: Path) -> nn.Module:
    """Load the trained projector, in eval mode.

    Raises:
        InputError: the run has no checkpoint, or its method has no projector of the pooled feature.
    """
    saved = sorted((run / "checkpoints").glob("step_*/state.json"))
    if not saved:
        raise InputError(f"{run} has no checkpoint, and only checkpoints hold the projector; train it again")
    trained = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    name = trained["method"].pop("name")
    config = from_mapping(trained["method"], resolve_method(name))
    encoder = from_mapping(trained["encoder"] | {"init": "random"}, EncoderConfig)
    with torch.random.fork_rng(devices=[]):
        method = config.build(build_encoder(encoder))
    projector = getattr(method, "projector", None)
    if not isinstance(projector, nn.Module) or any(isinstance(layer, nn.Conv2d) for layer in projector.modules()):
        raise InputError(f"{name} has no projector of the pooled feature; probe {run} itself")
    weights = load_file(saved[-1].with_name("method.safetensors"))
    projector.load_state_dict(
        {name.removeprefix("projector."): value for name, value in weights.items() if name.startswith("projector.")}
    )
    return projector.eval()


@torch.inference_mode()
def project(projector: nn.Module, pooled: Float[ndarray, "b c"], device: str) -> Float[ndarray, "b d"]:
    """Return the projector's output for pooled features; if it has several embedding spaces, concatenate them."""
    out: ndarray = projector(torch.from_numpy(pooled).to(device)).flatten(1).cpu().numpy()
    return out
