"""The ONNX graph of an encoder: uint8 frames in, named outputs out, with resize and normalisation inside.

The graph may end in a policy, whose action is one more output.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Literal

import onnx
import torch
from jaxtyping import Float, UInt8
from robossl_client.card import ACTION, STATE
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder, named_outputs, resize_matrix

Precision = Literal["fp32", "fp16"]

# The first ONNX opset (version of the operators) whose Resize can antialias. Older runtimes cannot read newer opsets.
OPSET = 18


class ActionModule(nn.Module):
    """A policy without its encoder, as it goes into a graph; it stays in fp32.

    Attributes:
        reads: The encoder's output that the policy reads.
        state_dim: Length of the state; 0 if the policy sees frames alone.
    """

    reads: Literal["pooled", "dense"]
    state_dim: int

    def forward(self, features: Float[Tensor, "b ..."], state: Float[Tensor, "b v"] | None) -> Float[Tensor, "b ..."]:
        """Return the action, (b, a) or (b, chunk, a)."""
        raise NotImplementedError


class EncoderGraph(nn.Module):
    """The module that is exported: it takes uint8 frames and returns fp32 outputs; its backbone is in fp32 or fp16."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        outputs: tuple[str, ...],
        precision: Precision,
        fixed_hw: tuple[int, int] | None,
        policy: ActionModule | None = None,
    ) -> None:
        super().__init__()
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.encoder = copy.deepcopy(encoder).to(self.dtype).eval()
        self.policy = copy.deepcopy(policy)
        self.outputs = outputs
        self.resize = None if fixed_hw is None else FixedResize(fixed_hw, encoder.config.input_hw)

    def forward(
        self, frames: UInt8[Tensor, "b h w 3"], state: Float[Tensor, "b v"] | None = None
    ) -> tuple[Tensor, ...]:
        """Return the chosen outputs, in the order of `self.outputs`."""
        if self.resize is None:
            pixels = self.encoder.preprocess(frames)
        else:
            # TensorRT takes uint8 only if the first node casts it.
            pixels = self.encoder.normalise(self.resize(frames.float().permute(0, 3, 1, 2) / 255))
        named = named_outputs(self.encoder(pixels.to(self.dtype)))
        if self.policy is not None:
            named[ACTION] = self.policy(named[self.policy.reads], state)
        return tuple(named[name] for name in self.outputs)


class FixedResize(nn.Module):
    """Resizes images of one fixed size to another (antialiased, bilinear).

    It uses two matrix products, because every runtime supports them.
    """

    rows: Float[Tensor, "H h"]
    columns: Float[Tensor, "w W"]

    def __init__(self, source_hw: tuple[int, int], target_hw: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", resize_matrix(source_hw[0], target_hw[0], mode="bilinear"))
        self.register_buffer("columns", resize_matrix(source_hw[1], target_hw[1], mode="bilinear").T.contiguous())

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        """Resize pixels that have the source size."""
        return self.rows @ pixels @ self.columns


def to_onnx(
    encoder: Encoder,
    *,
    outputs: tuple[str, ...],
    precision: Precision,
    fixed_hw: tuple[int, int] | None,
    fixed_batch: int | None = None,
    policy: ActionModule | None = None,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Export an encoder to a checked ONNX model.

    Without `fixed_batch`, the batch size is dynamic. Without `fixed_hw`, the frame size is dynamic.

    Args:
        encoder: The encoder; it is copied.
        outputs: Names of the outputs, in order.
        precision: Precision of the backbone.
        fixed_hw: The only frame size that the model takes; None for any.
        fixed_batch: The only batch size that the model takes; None for any.
        policy: The policy behind the encoder, if the model has one; it is copied.
        metadata: Entries to write into the model's metadata_props.
    """
    module = EncoderGraph(encoder, outputs=outputs, precision=precision, fixed_hw=fixed_hw, policy=policy)
    # The example frame must not have the size `input_hw`, because torch could then leave out the resize.
    height, width = fixed_hw or [size + 6 for size in encoder.config.input_hw]
    batch = {} if fixed_batch else {0: torch.export.Dim("batch", min=1)}
    dims = {"frames": dict(batch)}
    if fixed_hw is None:
        dims["frames"] |= {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}
    examples = {"frames": torch.zeros((fixed_batch or 2, height, width, 3), dtype=torch.uint8)}
    if policy is not None and policy.state_dim:
        dims[STATE], examples[STATE] = batch, torch.zeros(fixed_batch or 2, policy.state_dim)
    model = _trace(module, examples, dims, outputs)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # removes stack traces and file names of this machine
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _trace(
    module: EncoderGraph,
    examples: Mapping[str, Tensor],
    dims: dict[str, dict[int, torch.export.Dim]],
    outputs: tuple[str, ...],
) -> onnx.ModelProto:
    with warnings.catch_warnings():
        # Frames and state share the axis "batch" on purpose.
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            dynamo=True,
            dynamic_shapes=dims,
            input_names=list(examples),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto
