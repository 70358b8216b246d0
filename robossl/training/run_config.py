"""The configuration of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from robossl.common.checks import check_positive, check_range
from robossl.common.config import as_plain, load, with_changes
from robossl.common.paths import StrPath
from robossl.encoders.encoder import EncoderConfig
from robossl.errors import InputError
from robossl.methods import METHODS
from robossl.methods.base import MethodConfig
from robossl.training.optim import OptimConfig
from robossl.training.recipes import find_config
from robossl.training.run_paths import FILE, is_run

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class MixConfig:
    """An additional store of frames to train on."""

    store: Path
    split: str | None = "train"  # split to train on; None: every frame of the store
    weight: float = 1.0  # relative share of this store in every batch
    frames_per_s: float | None = None

    def __post_init__(self) -> None:
        check_positive(weight=self.weight, frames_per_s=self.frames_per_s)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Settings that say which frames to train on and how to read them."""

    store: Path
    split: str | None = "train"  # split to train on; None: every frame of the store
    epoch_over: Literal["frames", "episodes"] = "frames"
    frames_per_s: float | None = None  # rate at which anchor frames are taken; None: every stored frame
    resident_gib: float = 6.0  # maximum size, in GiB, of a split that is decoded once and kept on the training device
    num_workers: int = 2  # number of processes that decode frames, if the split is larger than `resident_gib`
    weight: float = 1.0  # relative share of `store` in every batch if `mix` adds stores
    mix: tuple[MixConfig, ...] = ()  # more stores, such as web images or exploration frames

    def __post_init__(self) -> None:
        check_positive(weight=self.weight, frames_per_s=self.frames_per_s)
        check_range(0, resident_gib=self.resident_gib, num_workers=self.num_workers)

    @property
    def parts(self) -> tuple[DataConfig | MixConfig, ...]:
        """The settings of all stores to draw frames from: `store`, then those of `mix`."""
        return (self, *self.mix)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of the training loop. Intervals are counted in steps; a step processes one global batch."""

    steps: int = 10_000
    batch_size: int = 256  # samples per step, over all ranks and micro-batches
    accumulate: int = 1  # number of micro-batches per step; each has its own batch statistics and negatives
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # auto: fp32 or bf16, whichever is faster on this machine, measured when the run starts. With bf16, forward passes
    # run under autocast, but logits and losses stay fp32.
    precision: Precision | Literal["auto"] = "auto"
    # CPU threads of each rank. None: the fastest number, measured when the run starts. 0: torch's default.
    threads: int | None = None
    channels_last: bool | None = None  # whether to use torch's channels_last format; None: only if convolutional
    compile: bool = False  # whether to compile the encoders (torch.compile), which takes a minute or more at the start
    # Share of the steps, from the first step on, that use smaller views, which take less time; 0: none.
    small_views_share: float = 0.0
    small_views_scale: float = 0.667  # size of the smaller views as a fraction of the full size
    # How several ranks train together. fsdp: every rank keeps a part of the weights and of the optimizer state.
    parallel: Literal["ddp", "fsdp"] = "ddp"
    sync_batch_norm: bool = True
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10
    health_every: int = 50
    sinks: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        check_range(
            1,
            steps=self.steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
            log_every=self.log_every,
            health_every=self.health_every,
        )
        check_range(0, threads=self.threads)
        check_range(0, 1, small_views_share=self.small_views_share)
        if not 0 < self.small_views_scale < 1:
            raise InputError(
                f"small_views_scale must be more than 0 and less than 1, got {self.small_views_scale}; "
                "with 0.667, views of 96 px start at 64 px"
            )


@dataclass(frozen=True, slots=True)
class OnlineKnnConfig:
    """Settings of online kNN: weighted kNN on a labelled split during training."""

    label: str
    every: int = 500
    train_split: str = "train"
    test_split: str = "val"
    frames_per_episode: int = 2
    output: Literal["pooled", "cls"] = "pooled"  # feature to use; cls is the class token of a ViT

    def __post_init__(self) -> None:
        check_range(1, every=self.every, frames_per_episode=self.frames_per_episode)
        if self.train_split == self.test_split:
            raise InputError(
                f"train_split and test_split must differ, got {self.test_split!r} for both: every frame would find "
                "itself; choose another test_split"
            )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration of a run, as in `configs/*.yaml` and in the run folder.

    Example:
        >>> import dataclasses
        >>> import robossl
        >>> config = robossl.load_config("quickstart")
        >>> dataclasses.replace(config, seed=1).seed
        1
    """

    method: MethodConfig = field(metadata={"choices": METHODS})
    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    knn: OnlineKnnConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(0, 2**32 - 1, seed=self.seed)  # seed and step together must fit into 64 bits
        own = as_plain(self.method).items()
        check_range(1, **{f"method.{name}": value for name, value in own if name.endswith("_dim")})


def load_config(source: StrPath, *, changes: Mapping[str, object] | None = None) -> RunConfig:
    """Read a configuration from a recipe, a YAML file or a run folder.

    Args:
        source: Name of a recipe, YAML file, or run folder.
        changes: New values by dotted key, such as `{"train.steps": 100, "knn": None}`.

    Raises:
        InputError: there is no such recipe or file, or a key or value in it is wrong; the message names file and line.

    Example:
        >>> import robossl
        >>> config = robossl.load_config("simsiam_resnet18_video", changes={"train.steps": 100})
        >>> config.train.steps, config.encoder.backbone
        (100, 'resnet18')
    """
    path = find_config(Path(source))
    config = load_saved(path / FILE) if is_run(path) else load(path, RunConfig)
    return with_changes(config, changes or {})


def load_saved(path: Path) -> RunConfig:
    """Read the `config.yaml` of a run, which an earlier version may have written.

    Raises:
        InputError: the file cannot be read.
    """
    config = load(path, RunConfig, is_saved=True)
    # A run saves the precision and threads that it uses. If it did not, it is from a version that used fp32 and torch's
    # default number of threads.
    precision = "fp32" if config.train.precision == "auto" else config.train.precision
    threads = 0 if config.train.threads is None else config.train.threads
    return replace(config, train=replace(config.train, precision=precision, threads=threads))


def as_saved(config: RunConfig, saved: RunConfig) -> RunConfig:
    """Return `config`; if it leaves precision or threads open, use the values of the run to resume, `saved`."""
    train = config.train
    precision = saved.train.precision if train.precision == "auto" else train.precision
    threads = saved.train.threads if train.threads is None else train.threads
    return replace(config, train=replace(train, precision=precision, threads=threads))
