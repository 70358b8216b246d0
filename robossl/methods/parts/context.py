"""Context modules: summarise each frame of a clip and the frames before it in one vector.

They take a vector for each frame, and columns: numbers that were recorded with the frames, such as actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.errors import InputError
from robossl.methods.parts.losses import full_precision, without_autocast

ContextKind = Literal["gru", "lstm", "transformer", "none"]


class RecurrentContext(nn.Module):
    """A GRU or LSTM over the clip. It runs in full precision, because rounding errors add up in its state."""

    def __init__(self, kind: Literal["gru", "lstm"], input_dim: int, dim: int, *, layers: int) -> None:
        super().__init__()
        self.rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](input_dim, dim, num_layers=layers, batch_first=True)

    def forward(self, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b t d"]:
        """Return the recurrent state after each frame."""
        with without_autocast(x):
            out: Tensor = self.rnn(full_precision(x))[0]
        return out


class TransformerContext(nn.Module):
    """Causal pre-norm transformer with learned positions: a frame attends to itself and earlier frames."""

    def __init__(self, input_dim: int, dim: int, *, layers: int, num_frames: int) -> None:
        super().__init__()
        self.embed = nn.Linear(input_dim, dim)
        self.position = nn.Parameter(torch.randn(num_frames, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            dim, _num_heads(dim), 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b t d"]:
        """Return the output at each frame."""
        t = x.shape[1]
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        # Without `is_causal`, torch looks whether the mask is causal, and a GPU would have to be waited for.
        out: Tensor = self.layers(self.embed(x) + self.position[:t], mask=later, is_causal=True)
        return full_precision(out)


def _num_heads(dim: int) -> int:
    """Return the largest possible number of attention heads.

    All heads have the same width, which is at least 64. If `dim` is smaller than 64, return 1.
    """
    return next(heads for heads in range(max(1, dim // 64), 0, -1) if dim % heads == 0)


def build_context(kind: ContextKind, input_dim: int, dim: int, *, layers: int, num_frames: int) -> nn.Module:
    """Return a module that maps (b, t, input_dim) to (b, t, dim); for the kind "none", return the identity."""
    match kind:
        case "none":
            return nn.Identity()
        case "transformer":
            return TransformerContext(input_dim, dim, layers=layers, num_frames=num_frames)
        case _:
            return RecurrentContext(kind, input_dim, dim, layers=layers)


class ColumnEmbedding(nn.Module):
    """Embeds columns of numbers (actions, joint states) and appends them to the frames' vectors.

    Continuous columns are standardised over the batch and embedded by a linear layer. Discrete columns are embedded by
    a lookup table.

    Args:
        continuous: width of each continuous column, by name.
        discrete: number of different values of each discrete column, by name; values count from 0. The values are
            checked before training (`Method.discrete_columns`), because a GPU would have to be waited for here.
        dim: width of each embedding.
        lag: number of frames by which columns are delayed. With 1, each frame gets the action that led to it, and the
            first frame gets zeros.
    """

    def __init__(self, continuous: Mapping[str, int], discrete: Mapping[str, int], *, dim: int, lag: int) -> None:
        super().__init__()
        self.continuous, self.discrete, self.lag = dict(continuous), dict(discrete), lag
        self.linears = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, dim)) for width in continuous.values()
        )
        self.tables = nn.ModuleList(nn.Embedding(num_values, dim) for num_values in discrete.values())
        self.dim = dim * (len(continuous) + len(discrete))

    def forward(self, z: Float[Tensor, "b t d"], columns: Mapping[str, Tensor]) -> Float[Tensor, "b t e"]:
        """Return the frames' vectors with the embedded columns appended."""
        parts = [
            linear(self._continuous_column(name, width, columns).flatten(0, 1)).unflatten(0, z.shape[:2])
            for linear, (name, width) in zip(self.linears, self.continuous.items(), strict=True)
        ]
        parts += [
            table(self._discrete_column(name, columns)) for table, name in zip(self.tables, self.discrete, strict=True)
        ]
        late = [F.pad(part, (0, 0, self.lag, 0))[:, : z.shape[1]] for part in parts]
        return torch.cat([z, *(full_precision(part) for part in late)], dim=-1)

    def _continuous_column(self, name: str, width: int, columns: Mapping[str, Tensor]) -> Tensor:
        if columns[name].shape[-1] != width:
            got = columns[name].shape[-1]
            raise InputError(f"column {name!r} is {got} wide, got {width}; set method.columns.{name} to {got}")
        return columns[name]

    def _discrete_column(self, name: str, columns: Mapping[str, Tensor]) -> Tensor:
        values = columns[name]
        if values.shape[-1] != 1:
            raise InputError(
                f"discrete column {name!r} must be one number a frame, it is {values.shape[-1]} wide; "
                "put it under method.columns"
            )
        return values.squeeze(-1).long()
