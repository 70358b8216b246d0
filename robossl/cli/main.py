"""The command line: a table of commands. A command's module is imported only when the command is called."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence

from robossl.common.arguments import call
from robossl.common.plugins import COMMANDS as OTHER_COMMANDS
from robossl.common.suggest import suggest_name
from robossl.common.version import __version__
from robossl.errors import InputError, RobosslError

# The commands, as {name: (target function, what the command does)}.
# A target function named `command` parses its arguments itself and returns the exit code.
# All other target functions have typed parameters, and `call` parses the arguments by these types.
COMMANDS = {
    "inspect": ("robossl.data.inspection:inspect", "say what a folder or file holds, before it is ingested"),
    "ingest": ("robossl.data.ingest:ingest", "turn videos and images into a store, once"),
    "merge": ("robossl.data.merge:merge", "join stores, such as the parts that several machines ingested"),
    "convert": ("robossl.data.convert:convert", "write a store in another format, such as WebDataset"),
    "info": ("robossl.data.describe:info", "say what a store holds"),
    "stats": ("robossl.report.data_command:stats", "measure a store: hours, labels, brightness, motion, repetition"),
    "list": (
        "robossl.cli.listing:list_names",
        "list methods, factors, backbones, recipes and other names to choose from",
    ),
    "pretrain": ("robossl.training.command:command", "train an encoder on a store, as a configuration says"),
    "evaluate": ("robossl.evaluation.command:evaluate", "measure an encoder on labelled frames, beside two references"),
    "regress": ("robossl.evaluation.regress:regress", "measure how well a robot's state can be read off frames"),
    "temporal": ("robossl.evaluation.temporal:temporal", "measure whether features are in the order of time"),
    "compare": ("robossl.evaluation.compare:compare", "one table of many runs over several stores"),
    "report": ("robossl.report.command:report", "write one HTML page about a run"),
    "export": ("robossl.exporting.export:export", "write a verified ONNX model and its card"),
    "attention": ("robossl.encoders.attention:attention", "draw what a ViT's class token attends to"),
    "probe": (
        "robossl.probes.command:command",
        "say what an encoder is blind to, and whether a task can bear it",
    ),
    "transfer": (
        "robossl.policies.command:transfer",
        "measure whether encoders help policies, clean and under nuisances",
    ),
    "export-policy": (
        "robossl.policies.export_policy:export_policy",
        "write a policy of transfer and its encoder as one verified ONNX model",
    ),
    "calibrate": (
        "robossl.policies.calibration.command:calibrate",
        "say what the verdicts of probes are worth, measured on policies",
    ),
    "embed": ("robossl.encoders.embed:embed", "embed frames with a run, an encoder or an exported model"),
    **OTHER_COMMANDS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # OpenMP reads this variable when torch is loaded. It limits how long a waiting thread spins (keeps its CPU busy).
    # If other programs run too, spinning threads slow down the thread they wait for (benchmarks/bench_neighbour.py).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # stdout is None if the parent process closed it
            sys.stdout.flush()
        return code
    except RobosslError as error:
        print(f"robossl: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("robossl: interrupted", file=sys.stderr)
        return 130
    # The program that reads the output, such as `head`, has ended (https://docs.python.org/3/library/signal.html).
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    name, *rest = argv
    if name == "--version":
        print(f"robossl {__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"{suggest_name('command', name, COMMANDS)}; see robossl --help")
    target, _ = COMMANDS[name]
    command = pkgutil.resolve_name(target)
    if target.endswith(":command"):
        code: int = command(rest)
        return code
    return call(command, rest, prog=f"robossl {name}")


def usage() -> str:
    """Return what `robossl --help` prints."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: robossl COMMAND ...      robossl COMMAND --help      robossl --version",
            "",
            "Pretrain visual encoders on robot video, export, serve and probe them.",
            "",
            *rows,
        ]
    )
