"""Repository: the models folder, its loaded versions, and how one version takes over from another.

The version_policy in a model's config.pbtxt says which versions are loaded. The newest loaded version is current: it
serves calls that name no version. If a new version fails its checks, the next older version that passes is served, or
the version that served before. A client can pin a version, that is, accept only this version. A replaced version stays
loaded while clients that pinned it still use it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import grpc
from robossl_client._proto import inference_pb2 as pb

from robossl.errors import InputError, RobosslError
from robossl_serving.device import Device
from robossl_serving.entry import (
    IndexRow,
    ModelEntry,
    join_names,
    log_change,
    log_scan,
    log_serving,
    not_loaded_error,
    unknown_model_error,
)
from robossl_serving.folder import artefacts, log_incomplete, nothing_found_error, scan
from robossl_serving.loader import LoadedVersion, ModelLoader
from robossl_serving.model import Model, SessionSettings, places_of
from robossl_serving.policy import VersionChooser
from robossl_serving.refused import RefusedError

_log = logging.getLogger("robossl.serving")


class Repository:
    """The loaded models of one folder."""

    def __init__(
        self,
        root: Path,
        settings: SessionSettings,
        *,
        retire_after_s: float = 600.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._loader = ModelLoader(root, settings, Device(places=places_of(settings)))
        self._chooser = VersionChooser(root)
        # A replaced version is unloaded after this time without a request from a client that pinned it.
        self._retire_after_s = retire_after_s
        self._on_change = on_change  # called when versions on disk, loaded or failed may have changed
        self._loading = threading.Lock()
        self._entries: dict[str, ModelEntry] = {}
        # By model: the version that a user loaded by number; it overrides the version policy.
        self._chosen: dict[str, int] = {}
        self._is_serving = False  # whether the server listens
        self._incomplete: frozenset[Path] = frozenset()  # ignored version folders; each is logged only once
        self._unloaded: set[str] = set()  # models that a user unloaded; they are loaded again only on request

    def load_all(self) -> None:
        """Load every model by its version policy.

        Raises:
            InputError: no model can be served.
        """
        found = self._scan()
        if not found:
            raise nothing_found_error(self._root)
        for name, versions in found.items():
            try:
                self._update(name, versions, again=True)
            except RobosslError:
                if len(found) == 1:
                    raise
        if not self._entries:
            raise InputError(f"no model of {self._root} can be served; the lines above say why")

    def announce(self) -> None:
        """Log which models serve; call this when the server listens."""
        with self._loading:
            self._is_serving = True
            for entry in self._entries.values():
                log_serving(entry)

    def load(self, name: str, version: int | None = None) -> None:
        """Load a model by its version policy, or load one version and make it current.

        The old version serves until the new version is ready. A version loaded by number overrides the version policy
        until the model is loaded without a version number.

        Raises:
            RefusedError: the model or version does not exist, or a version failed its checks.
        """
        versions = self._scan().get(name)
        if versions is None:
            raise RefusedError(grpc.StatusCode.NOT_FOUND, f"there is no model {name[:128]!r} in the repository")
        if version is not None and version not in versions:
            said = f"version {version} of {name} is not in the repository; it holds {join_names(versions)}"
            if self._root / name / str(version) in self._incomplete:
                said += f". The folder of version {version} has no model.onnx: export it again"
            raise RefusedError(grpc.StatusCode.NOT_FOUND, said)
        try:
            failed = self._update(name, versions, again=True, is_told=True, version=version)
        except RobosslError as error:
            failed = tuple(number for key, number in self.failed() if key == name and version in (None, number))
            raise not_loaded_error(name, failed, self._entries.get(name)) from error
        if failed:
            raise not_loaded_error(name, failed, self._entries.get(name))

    def unload(self, name: str) -> None:
        """Stop serving a model; waiting requests are still answered.

        Raises:
            RefusedError: the model is not loaded.
        """
        with self._loading:
            if name not in self._entries:
                raise unknown_model_error(name, self._entries)
            self._unloaded.add(name)
            entry = self._entries.pop(name)
            for model in entry.models():
                _close(model)
        self._on_change()

    def find(self, name: str, version: str, artefact: str | None) -> Model:
        """Find the model that a call asks for.

        Args:
            name: Name of the model.
            version: Version number; empty for the current version.
            artefact: sha256 of the only model.onnx that the client accepts; None if the client accepts any.

        Raises:
            RefusedError: the version is not loaded, or its model.onnx is not the one that the client accepts.
        """
        return self.entry(name).find(version, artefact)

    def entry(self, name: str) -> ModelEntry:
        """Return the entry of a loaded model.

        Raises:
            RefusedError: the model is not loaded.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise unknown_model_error(name, self._entries)
        return entry

    def entries(self) -> list[ModelEntry]:
        """Return the entries of all loaded models."""
        return list(self._entries.values())

    def models(self) -> list[Model]:
        """Return all loaded versions of all models."""
        return [model for entry in self.entries() for model in entry.models()]

    def failed(self) -> list[tuple[str, int]]:
        """Return name and version of all versions that failed their checks."""
        return self._loader.failed()

    def index(self) -> list[IndexRow]:
        """Return a row for each version that is on disk or loaded."""
        rows = {(name, version): "" for name, versions in scan(self._root).items() for version in versions}
        rows |= {(model.card.name, model.card.version): "" for model in self.models()}
        rows |= {key: "failed its checks; the server's log says why" for key in self.failed() if key in rows}
        ready = {(model.card.name, model.card.version) for model in self.models()}
        return [IndexRow(*key, ready=key in ready, reason=reason) for key, reason in sorted(rows.items())]

    def tend(self) -> None:
        """Unload replaced versions that are no longer used, and update the list of versions on disk."""
        on_disk = scan(self._root)
        with self._loading:
            for name, entry in list(self._entries.items()):
                idle = {number for number, loaded in entry.versions.items() if self._is_idle(loaded.model, entry)}
                self._entries[name] = dataclasses.replace(
                    entry,
                    versions={number: loaded for number, loaded in entry.versions.items() if number not in idle},
                    on_disk=artefacts(self._root / name, on_disk.get(name, ())),
                )
                for number in idle:
                    _close(entry.versions[number].model)
        self._on_change()

    def look(self, *, again: bool) -> None:
        """Load new versions from disk; with `again`, also retry failed versions whose files have not changed."""
        before = self.entries()
        for name, versions in self._scan().items():
            with contextlib.suppress(RobosslError):  # the errors are already logged
                self._update(name, versions, again=again)
        log_scan(before, self.entries(), self.failed(), is_told=again)

    def close(self) -> None:
        """Run all waiting requests, then close all models."""
        for thread in [model.close() for model in self.models()]:
            thread.join()

    def _scan(self) -> dict[str, list[int]]:
        self._incomplete = log_incomplete(self._root, self._incomplete)
        return scan(self._root)

    def _update(
        self, name: str, on_disk: Collection[int], *, again: bool, is_told: bool = False, version: int | None = None
    ) -> tuple[int, ...]:
        """Load the versions that the version policy wants, or only `version`; return those that failed their checks.

        Raises:
            RobosslError: no wanted version can be served; the loaded versions are then unchanged.
        """
        # New versions are NOT_SERVING while they are loaded, which takes minutes if TensorRT builds an engine.
        self._on_change()
        try:
            with self._loading:
                if name in self._unloaded and not is_told:
                    return ()
                self._loader.forget(name, on_disk)
                chosen = None if is_told else self._chosen.get(name)
                number = version if chosen not in on_disk else chosen
                policy, choice = self._chooser.choose(name, on_disk, number)
                entry = self._entries.get(name)
                held = {} if entry is None else entry.versions
                good, failed = self._loader.open_chosen(name, choice, held=held, again=again, may_keep=version is None)
                self._unloaded.discard(name)
                if version is not None:
                    self._chosen[name] = version
                elif is_told or self._chosen.get(name) not in on_disk:
                    self._chosen.pop(name, None)
                self._replace(name, good, failed, missing=choice.missing, policy=policy, on_disk=on_disk)
                return failed
        finally:
            self._on_change()

    def _replace(
        self,
        name: str,
        good: Mapping[int, LoadedVersion],
        failed: tuple[int, ...],
        *,
        missing: tuple[int, ...],
        policy: pb.ModelVersionPolicy,
        on_disk: Iterable[int],
    ) -> None:
        old = self._entries.get(name)
        versions = {**(old.versions if old else {}), **good}
        there = artefacts(self._root / name, on_disk)
        entry = ModelEntry(name, max(good), versions, frozenset(good), failed, missing, policy, there)
        self._entries[name] = entry
        log_change(old, entry, is_serving=self._is_serving)
        for number, loaded in old.versions.items() if old else ():
            if loaded.model is not versions[number].model:
                _close(loaded.model)

    def _is_idle(self, model: Model, entry: ModelEntry) -> bool:
        is_old = model.card.version not in entry.kept
        return is_old and time.monotonic() - model.pinned_s > self._retire_after_s


def _close(model: Model) -> None:
    _log.info("unloading", extra={"model": model.card.name, "version": model.card.version})
    model.close()
