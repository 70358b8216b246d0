"""Loader: opens a version's folder and checks it, and remembers what failed, so that it is not tried in vain again."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from robossl.errors import InputError, RobosslError, reason
from robossl.session import check_model_file, read_card
from robossl_serving.device import Device
from robossl_serving.folder import FileStamp, read_stamp
from robossl_serving.model import Model, SessionSettings
from robossl_serving.policy import VersionChoice

_log = logging.getLogger("robossl.serving")


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that passed its checks."""

    model: Model
    stamp: FileStamp  # of its files when it was loaded


class ModelLoader:
    """Opens the versions of one repository."""

    def __init__(self, root: Path, settings: SessionSettings, device: Device) -> None:
        self._root = root
        self._settings = settings
        self._device = device  # which all of them share
        self._failed: dict[tuple[str, int], tuple[FileStamp, str]] = {}  # what its files were then, and why

    def open(self, name: str, version: int, *, held: LoadedVersion | None, again: bool) -> LoadedVersion:
        """Open a version; one that is held and whose files are as they were is returned as it is.

        Args:
            name: Of the model.
            version: Its number.
            held: What is loaded of this version.
            again: Try one too that failed before and has not changed.

        Raises:
            RobosslError: it cannot be served; the log says so the first time.
        """
        folder = self._root / name / str(version)
        stamp = read_stamp(folder)  # before it is read: if it changes meanwhile, it is looked at again
        if held is not None and held.stamp == stamp:
            self._failed.pop((name, version), None)
            return held
        seen, why = self._failed.get((name, version), (None, ""))
        if seen == stamp and not again:
            raise InputError(why)
        try:
            model = self._open(folder, held.model if held else None)
        except RobosslError as error:
            self._failed[name, version] = stamp, str(error)
            _log.error("refused", extra={"model": name, "version": version, "reason": str(error)})
            raise
        self._failed.pop((name, version), None)
        return LoadedVersion(model, stamp)

    def open_chosen(
        self, name: str, choice: VersionChoice, *, held: Mapping[int, LoadedVersion], again: bool, may_keep: bool
    ) -> tuple[dict[int, LoadedVersion], tuple[int, ...]]:
        """Open versions in order until there are enough; returns them, and those that failed on the way.

        With `may_keep` one that is held, and whose files were damaged since, is served on as it was loaded.

        Raises:
            RobosslError: none can be served.
        """
        good: dict[int, LoadedVersion] = {}
        errors: dict[int, RobosslError] = {}
        for version in choice.versions:
            if len(good) == choice.num:
                break
            try:
                good[version] = self.open(name, version, held=held.get(version), again=again)
            except RobosslError as error:
                errors[version] = error
                if may_keep and version in held:
                    good[version] = held[version]
        if good:
            return good, tuple(errors)
        raise next(iter(errors.values()))

    def failed(self) -> list[tuple[str, int]]:
        """Name and version of all that failed their checks."""
        return sorted(self._failed)

    def forget(self, name: str, on_disk: Collection[int]) -> None:
        """Forget versions of a model that are no longer there."""
        for key in [key for key in self._failed if key[0] == name and key[1] not in on_disk]:
            del self._failed[key]

    def _open(self, folder: Path, held: Model | None) -> Model:
        """Return the one that is loaded already if the folder still holds it, or else open and check the folder's."""
        started_s = time.monotonic()
        try:
            if held is not None and (card := read_card(folder / "card.json")).model_sha256 == held.artefact:
                check_model_file(folder / "model.onnx", card)
                return held
            model = Model(folder, self._settings, self._device)
        except RobosslError:
            raise
        except Exception as error:  # onnxruntime's have no class in common, and a folder can be damaged in many ways
            _log.exception("a version could not be opened", extra={"folder": str(folder)})
            raise InputError(f"{folder} cannot be opened ({reason(error)}); export it again") from error
        _log.info("loaded", extra={**model.facts(), "seconds": round(time.monotonic() - started_s, 2)})
        return model
