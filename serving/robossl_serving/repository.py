"""Repository: the models folder, what of it is loaded, and how one version takes over from another.

The newest version on disk serves callers that name none. A version that is replaced stays loaded while callers that
pinned it still ask; one that fails its checks is never served, and what served before serves on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from robossl.errors import InputError, RobosslError, reason
from robossl.session import read_card
from robossl_serving.device import Device
from robossl_serving.folder import Stamp, scan, stamp_of
from robossl_serving.model import Model, SessionSettings, places_of
from robossl_serving.refused import Refused

_log = logging.getLogger("robossl.serving")


@dataclass(frozen=True, slots=True)
class _Entry:
    current: int
    stamp: Stamp  # of the current version's files when it was loaded
    versions: Mapping[int, Model]


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One version on disk or in memory, as RepositoryIndex lists it."""

    name: str
    version: int
    ready: bool
    reason: str


class Repository:
    """The loaded models of one folder."""

    def __init__(self, root: Path, settings: SessionSettings, *, retire_after_s: float = 600.0) -> None:
        self._root = root
        self._settings = settings
        self._device = Device(places=places_of(settings))
        self._retire_after_s = retire_after_s  # a version nobody pinned lately
        self._loading = threading.Lock()
        self._entries: dict[str, _Entry] = {}  # replaced whole, so that readers need no lock
        self._refused: dict[tuple[str, int], Stamp] = {}  # and what its files were then
        self._unloaded: set[str] = set()  # told to go, and not to come back unless told to

    def load_all(self) -> None:
        """Load the newest version of every model.

        Raises:
            InputError: there is none that can be served.
        """
        found = scan(self._root)
        if not found:
            raise InputError(f"{self._root} holds no NAME/VERSION/model.onnx; `robossl export` writes one")
        for name, versions in found.items():
            try:
                self._load(name, versions[-1])
            except RobosslError:
                if len(found) == 1:
                    raise
        if not self._entries:
            raise InputError(f"no model of {self._root} can be served; the lines above say why")

    def load(self, name: str) -> None:
        """Let the newest version on disk take over; what serves now serves until the new one is ready.

        Raises:
            Refused: there is none, or it failed its checks, and nothing has changed.
        """
        versions = scan(self._root).get(name)
        if versions is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no model {name[:128]!r} in the repository")
        try:
            self._load(name, versions[-1])
        except RobosslError as error:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"version {versions[-1]} of {name} failed its checks and is not served; what served before serves on. "
                "The server's log says why",
            ) from error

    def unload(self, name: str) -> None:
        """Stop serving a model; what waits is still answered.

        Raises:
            Refused: it is not loaded.
        """
        with self._loading:
            if name not in self._entries:
                raise unknown_model(name, self._entries)
            self._unloaded.add(name)
            entry = self._entries.pop(name)
            for model in entry.versions.values():
                self._close(model)

    def find(self, name: str, version: str, artefact: str | None) -> Model:
        """The model that a call asks for.

        Args:
            name: Of the model.
            version: Its number; empty: the current one.
            artefact: sha256 of the model.onnx that the caller has pinned.

        Raises:
            Refused: it is not loaded, or is another encoder than the caller has pinned.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise unknown_model(name, self._entries)
        if artefact is not None:
            return _pinned(entry, version, artefact)
        model = entry.versions.get(int(version) if version.isdecimal() else -1 if version else entry.current)
        if model is None:
            raise Refused(
                grpc.StatusCode.NOT_FOUND,
                f"version {version[:32]!r} of {name} is not loaded; loaded are {_listed(entry.versions)}",
            )
        return model

    def versions(self, name: str) -> list[int]:
        """Loaded versions of a model, the current one last."""
        entry = self._entries[name]
        return [*(version for version in entry.versions if version != entry.current), entry.current]

    def models(self) -> list[Model]:
        """All loaded versions of all models."""
        return [model for entry in self._entries.values() for model in entry.versions.values()]

    def index(self) -> list[IndexRow]:
        """All versions on disk or loaded."""
        rows = {(name, version): "" for name, versions in scan(self._root).items() for version in versions}
        rows |= {(model.card.name, model.card.version): "" for model in self.models()}
        rows |= {key: "failed its checks; the server's log says why" for key in self._refused if key in rows}
        ready = {(model.card.name, model.card.version) for model in self.models()}
        return [IndexRow(*key, ready=key in ready, reason=reason) for key, reason in sorted(rows.items())]

    def tend(self) -> None:
        """Retire versions that nobody asks for any more."""
        with self._loading:
            for name, entry in list(self._entries.items()):
                idle = [model for model in entry.versions.values() if self._is_idle(model, entry)]
                kept = {number: model for number, model in entry.versions.items() if model not in idle}
                self._entries[name] = dataclasses.replace(entry, versions=kept)
                for model in idle:
                    self._close(model)

    def look(self, *, again: bool) -> None:
        """Take up the newest versions on disk that are not what was seen before; `again`: also those refused before."""
        for name, versions in scan(self._root).items():
            newest, stamp = versions[-1], self._stamp(name, versions[-1])
            entry = self._entries.get(name)
            is_current = entry is not None and (entry.current, entry.stamp) == (newest, stamp)
            is_refused = self._refused.get((name, newest)) == stamp
            if not is_current and (again or not is_refused):
                with contextlib.suppress(RobosslError):  # it is in the log
                    self._load(name, newest, is_asked=False)

    def close(self) -> None:
        """Let all that waits finish."""
        for thread in [model.close() for model in self.models()]:
            thread.join()

    def _load(self, name: str, version: int, *, is_asked: bool = True) -> None:
        with self._loading:
            if is_asked:
                self._unloaded.discard(name)
            elif name in self._unloaded:
                return
            stamp = self._stamp(name, version)  # before it is read: should it change meanwhile, it is looked at again
            entry = self._entries.get(name)
            held = entry.versions.get(version) if entry else None
            try:
                model = self._model(self._root / name / str(version), held)
            except RobosslError as error:
                self._refused[name, version] = stamp
                _log.error("refused", extra={"model": name, "version": version, "reason": str(error)})
                raise
            self._refused.pop((name, version), None)
            self._entries[name] = _Entry(version, stamp, {**(entry.versions if entry else {}), version: model})
            if held is not None and held is not model:
                self._close(held)

    def _model(self, folder: Path, held: Model | None) -> Model:
        """The one that is loaded already, where the folder still holds it, or else the folder's, opened and checked.

        Raises:
            RobosslError: it cannot be served.
        """
        started_s = time.monotonic()
        try:
            if held is not None and read_card(folder / "card.json").model_sha256 == held.artefact:
                return held
            model = Model(folder, self._settings, self._device)
        except RobosslError:
            raise
        except Exception as error:  # onnxruntime's have no class in common, and a folder can be damaged in many ways
            _log.exception("a version could not be opened", extra={"folder": str(folder)})
            raise InputError(f"{folder} cannot be opened ({reason(error)}); export it again") from error
        _log.info("loaded", extra={**model.facts(), "seconds": round(time.monotonic() - started_s, 2)})
        return model

    def _stamp(self, name: str, version: int) -> Stamp:
        return stamp_of(self._root / name / str(version))

    def _is_idle(self, model: Model, entry: _Entry) -> bool:
        is_old = model.card.version != entry.current
        return is_old and time.monotonic() - model.pinned_s > self._retire_after_s

    def _close(self, model: Model) -> None:
        _log.info("unloading", extra={"model": model.card.name, "version": model.card.version})
        model.close()


def unknown_model(name: str, known: Mapping[str, object]) -> Refused:
    """A name that no loaded model has."""
    return Refused(grpc.StatusCode.NOT_FOUND, f"no model {name[:128]!r} is loaded; loaded are {_listed(known)}")


def _pinned(entry: _Entry, version: str, artefact: str) -> Model:
    for model in entry.versions.values():
        if model.artefact == artefact and version in ("", str(model.card.version)):
            model.pinned_s = time.monotonic()
            return model
    raise Refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"the pinned encoder is not served any more; the current one is version {entry.current}, whose embeddings are "
        "not comparable: connect anew to take it, or ask for the old one to be loaded",
    )


def _listed(names: Mapping[str, object] | Mapping[int, object]) -> str:
    return ", ".join(map(str, names)) or "none"
