"""Make a method train on several ranks: its batch-norm statistics, averaged gradients, and sharded weights."""

from __future__ import annotations

import inspect

from torch import nn
from torch.nn.parallel import DistributedDataParallel as DataParallel

from robossl.common.ranks import Ranks
from robossl.common.sharding import shard
from robossl.encoders.encoder import Encoder, unused_weights
from robossl.errors import InputError
from robossl.methods.base import Method
from robossl.methods.parts.batch_norm import convert_split_batchnorm, convert_sync_batchnorm
from robossl.training.run_config import RunConfig


def place_batch_norm(method: Method, config: RunConfig, ranks: Ranks) -> Method:
    """Convert the batch-norms of a method to the statistics that it needs, and return the method.

    If the method has `batch_norm_groups`, the statistics are of groups of the batch. Otherwise, with several ranks and
    `train.sync_batch_norm`, they are of the global batch. In all other cases nothing is converted.
    """
    groups = method.batch_norm_groups
    if groups is None:
        several = ranks.world_size > 1 and config.train.sync_batch_norm
        return convert_sync_batchnorm(method) if several else method
    if groups % ranks.world_size or config.train.batch_size % (groups * config.train.accumulate):
        raise InputError(
            f"{groups} groups of batch-norm do not divide over {ranks.world_size} ranks and batches of "
            f"{config.train.batch_size // config.train.accumulate}; choose method.batch_norm_groups so that they do"
        )
    return convert_split_batchnorm(method, groups=groups // ranks.world_size)


def wrap_model(method: Method, config: RunConfig, ranks: Ranks) -> nn.Module:
    """Return the model that the training loop calls.

    It is the method, wrapped to average gradients if there are several ranks and it is not sharded.
    """
    model: nn.Module = method
    if ranks.world_size > 1 and not shards(config, ranks):
        for encoder in [module for module in method.modules() if isinstance(module, Encoder)]:
            for weight in unused_weights(encoder):
                # No loss depends on these weights, so DDP would wait for their gradients forever.
                weight.requires_grad_(False)
        if "forward_sync_buffers" in inspect.signature(DataParallel.__init__).parameters:  # torch 2.15 and later
            model = DataParallel(method, forward_sync_buffers=False)
        else:
            model = DataParallel(method, broadcast_buffers=False)
    return model


def shards(config: RunConfig, ranks: Ranks) -> bool:
    """Return whether the weights are sharded over ranks (FSDP2). A single rank keeps whole weights."""
    return config.train.parallel == "fsdp" and ranks.world_size > 1


def shard_weights(method: Method, ranks: Ranks) -> None:
    """Shard the weights of a method over ranks, in place.

    The weights of a block of an encoder are gathered when it runs, and then freed. So are those of the rest of the
    encoder, and of the rest of the method. Blocks are the members of the backbone's lists of modules.
    """
    parts: list[nn.Module] = []
    for encoder in [module for module in method.modules() if isinstance(module, Encoder)]:
        lists = [child for child in encoder.backbone.children() if isinstance(child, nn.Sequential | nn.ModuleList)]
        parts += [block for each in lists for block in each if any(True for _ in block.parameters())]
        parts.append(encoder)
    shard(method, parts, ranks)
