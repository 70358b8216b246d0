"""The folder of a measurement: its settings, and each finished piece of work, written in one step.

A run that was killed goes on where it was. A folder can also be extended by encoders, factors, strengths and seeds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robossl.common.atomic_io import atomic_write, raise_disk_full, write_text
from robossl.errors import InputError
from robossl.policies.result import TransferSettings
from robossl.policies.simulator import Rollout

if TYPE_CHECKING:
    from robossl.policies.train import TrainedPolicy


class KeptWork:
    """Reads and writes the pieces of one measurement.

    Args:
        folder: The folder; it is made if needed.
        settings: Settings that must be those of the folder.

    Raises:
        InputError: the folder has pieces of other settings.
    """

    def __init__(self, folder: Path, settings: TransferSettings) -> None:
        self.folder = folder
        path, now = folder / "settings.json", json.loads(json.dumps(asdict(settings)))
        before = _read(path)
        if before is not None and before != now:
            name = next((each for each in now if before.get(each) != now[each]), "schema")
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{folder} holds a measurement with {option} {before.get(name)}, got {now.get(name)}; "
                "choose another --out, or remove the folder"
            )
        if before is None:
            write_text(path, json.dumps(now, indent=1) + "\n")

    def place(self, name: str, digest: str, seed: int) -> Path:
        """Return the folder of one row's policy."""
        return place_of(self.folder, name, digest, seed)

    def read_rollouts(self, place: Path, factor: str, strength: int, scenes: Sequence[int]) -> list[Rollout] | None:
        """Return the finished rollouts under a condition; None if there are none yet."""
        content = _read(place / f"{factor}{strength}.json")
        if content is None:
            return None
        found = [Rollout(**each) for each in content["rollouts"]]
        return found if [each.scene for each in found] == list(scenes) else None

    def write_rollouts(
        self, place: Path, factor: str, strength: int, rollouts: Sequence[Rollout], seconds: float
    ) -> None:
        """Keep the rollouts under a condition."""
        content = {"seconds": round(seconds, 2), "rollouts": [asdict(each) for each in rollouts]}
        write_text(place / f"{factor}{strength}.json", json.dumps(content) + "\n")

    def read_about(self, place: Path) -> dict[str, Any] | None:
        """Return what is known of a policy's training; None if it is not trained yet."""
        return read_place(place)

    def load_policy(self, place: Path, trained: TrainedPolicy) -> None:
        """Load the weights of a policy that `write_policy` wrote into a new one of the same form."""
        from safetensors.torch import load_model

        load_model(trained.policy, place / "policy.safetensors")

    def write_policy(self, place: Path, trained: TrainedPolicy, about: dict[str, Any]) -> None:
        """Keep a trained policy."""
        from safetensors.torch import save_model

        place.mkdir(parents=True, exist_ok=True)
        with raise_disk_full(place), atomic_write(place / "policy.safetensors") as aside:
            save_model(trained.policy, str(aside))
        write_text(place / "policy.json", json.dumps({"loss": trained.loss, **about}) + "\n")


def place_of(folder: Path, name: str, digest: str, seed: int) -> Path:
    """Return the folder of one row's policy in the folder of a measurement."""
    slug = re.sub(r"[^\w.-]+", "_", name).strip("_")[-40:]
    return folder / "cells" / f"{slug}-{hashlib.sha256(digest.encode()).hexdigest()[:12]}" / f"seed{seed}"


def read_place(place: Path) -> dict[str, Any] | None:
    """Return what is known of the training of the policy in a row's folder; None if it is not trained yet."""
    return _read(place / "policy.json") if (place / "policy.safetensors").is_file() else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
