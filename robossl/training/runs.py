"""A run as an object, returned by `pretrain` and `open_run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robossl.common.config import read_mapping
from robossl.common.display import html_table
from robossl.common.paths import StrPath
from robossl.training.run_paths import FILE, check_run

if TYPE_CHECKING:
    from robossl.encoders.inference import FrameEncoder
    from robossl.training.run_config import RunConfig


class Run:
    """A run folder. Every property reads the folder again, so its value is up to date while the run trains.

    Functions that take a path also take a `Run`: `robossl.export(run)`, `open(run / "log.txt")`.

    Attributes:
        path: The folder.

    Example:
        >>> import robossl
        >>> run = robossl.open_run("runs/tiny")
        >>> run
        Run(runs/tiny: simsiam on test_resnet, 2 of 2 steps, loss ..., health: not checked)
        >>> run.is_finished, run.config.train.batch_size, run.metrics[-1]["step"]
        (True, 4, 2)
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)

    @property
    def config(self) -> RunConfig:
        """The whole configuration, defaults included.

        Raises:
            InputError: the configuration cannot be read, or a newer version of the package wrote it.
        """
        from robossl.training.run_config import load_saved

        return load_saved(self.path / FILE)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl as dicts: `step`, and the values logged at that step by name."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # a killed run may leave half a line

    @property
    def step(self) -> int:
        """Number of steps that the saved encoder was trained for; 0 before the first checkpoint."""
        from robossl.encoders.encoder_files import read_about

        folder = self.path / "encoder"
        return int(read_about(folder)["extra"]["step"]) if folder.is_dir() else 0

    @property
    def is_finished(self) -> bool:
        """Whether all steps of the configuration are done and saved."""
        return self.step >= int(self._plain("train", "steps"))

    @property
    def health(self) -> str:
        """Health of the run's outputs as text: "healthy", "not checked", or "collapsed" with the first step and why."""
        from robossl.report.record import find_collapse, read_run

        if not any("health/std" in values for values in self.metrics):
            return "not checked"
        found = find_collapse(read_run(self.path))
        if found is None:
            return "healthy"
        return f"{'was ' if found.is_over else ''}collapsed from step {found.first_step}: {found.reason}"

    def encoder(self, *, device: str = "cpu", outputs: tuple[str, ...] | None = None) -> FrameEncoder:
        """Open the encoder as a function that takes frames and returns features, as `robossl.load_encoder(run)` does.

        Args:
            device: cpu, cuda or cuda:N.
            outputs: Names of the outputs to return: pooled, cls, dense, keypoints; by default all that the encoder has.

        Raises:
            InputError: the run has not saved an encoder yet, or there is no such output or device.
        """
        from robossl.encoders.inference import load_encoder

        return load_encoder(self.path, device=device, outputs=outputs)

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: StrPath) -> Path:
        return self.path / name

    def __repr__(self) -> str:
        rows = self._rows()
        return (
            f"Run({self.path}: {rows['method']}, {rows['steps']} steps, loss {rows['loss']}, health: {rows['health']})"
        )

    def _repr_html_(self) -> str:
        return html_table(f"Run {self.path}", list(self._rows().items()))

    def _rows(self) -> dict[str, str]:
        losses = [values["loss"] for values in self.metrics if "loss" in values]
        return {
            "method": f"{self._plain('method', 'name')} on {self._plain('encoder', 'backbone')}",
            "steps": f"{self.step} of {self._plain('train', 'steps')}",
            "loss": f"{losses[-1]:.4f}" if losses else "not logged",
            "health": self.health,
        }

    def _plain(self, part: str, name: str) -> Any:
        return read_mapping(self.path / FILE)[part][name]


def open_run(path: StrPath) -> Run:
    """Open the folder of a run, finished or not.

    Raises:
        InputError: no run has begun in the folder.

    Example:
        >>> import robossl
        >>> encoder = robossl.open_run("runs/tiny").encoder(outputs=("pooled",))
        >>> encoder.card.method, encoder.card.step
        ('simsiam', 2)
    """
    check_run(Path(path))
    return Run(path)
