"""`robossl pretrain`: read a configuration, override its values from the command line, and train."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from robossl.errors import InputError, RunInterrupted
from robossl.training.recipes import find_config, recipes
from robossl.training.run_paths import is_run, resolve


def command(argv: Sequence[str]) -> int:
    """Run `robossl pretrain CONFIG [--out RUN] [--train.steps 1000 ...]` or `robossl pretrain RUN --resume`.

    Return the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="robossl pretrain",
        description="Pretrain an encoder. Any value of the configuration can be overridden: --train.steps 1000; "
        "`robossl pretrain CONFIG --help` lists them all. `--knn none` switches online kNN off; `none` is allowed for "
        "every optional value. `robossl pretrain RUN --resume --train.steps MORE` lengthens a run.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, nargs="?", help="a recipe's name, a yaml, or with --resume a run folder")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME_OF_CONFIG)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run folder")
    known, rest = parser.parse_known_args(list(argv))
    if known.config is None:
        parser.print_help()
        return 0 if {"-h", "--help"} & set(rest) else 2
    _check_recipe(known.config, argv, rest)
    asks_for_help = bool({"-h", "--help"} & set(rest))
    yaml, out = resolve(find_config(known.config), out=known.out, resume=known.resume or asks_for_help)
    # Importing torch, timm and the probes takes many seconds. The command line is therefore checked before that.
    from robossl.common.config import load, override
    from robossl.training.run_config import RunConfig

    config = override(load(yaml, RunConfig, is_saved=known.resume), rest, prog=f"robossl pretrain {known.config}")
    from robossl.common.malloc import keep_freed_memory
    from robossl.training.pretrain import pretrain

    keep_freed_memory()
    try:
        pretrain(config, out=out, resume=known.resume)
    except RunInterrupted as stopped:  # `pretrain` has already printed the message, on the main rank
        return stopped.exit_code
    return 0


def _check_recipe(config: Path, argv: Sequence[str], rest: Sequence[str]) -> None:
    """Check that `config` is not the value of an option in `rest`, as in `pretrain --data.store stores/mine`.

    Raises:
        InputError: `config` follows an option of the configuration, and is no recipe, YAML file or run.
    """
    if config.name in recipes() or config.suffix in (".yaml", ".yml") or is_run(config):
        return
    options = [word for word in rest if word.startswith("--") and "=" not in word]
    if any(before in options and Path(word) == config for before, word in itertools.pairwise(argv)):
        raise InputError("name a recipe first, such as simsiam_resnet18_video (`robossl list recipes`)")
