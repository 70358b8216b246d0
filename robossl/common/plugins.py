"""Find methods, sources, factors and protocols by name, including plugins (those of other installed packages).

An object is imported when it is first used. This is the only module that names the commands, environments and clients
of this repository's other packages.
"""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from robossl.common.suggest import suggest_name
from robossl.errors import InputError, reason

# Commands of this repository's other packages by name: "module:function" and help text.
COMMANDS = {
    "bench-serve": (
        "robossl_serving.bench.command:bench_serve",
        "put load on a server and say how old its answers are",
    ),
    "collect": ("robossl_envs.collect:collect", "play an environment and write what is seen as a LeRobot data set"),
    "doctor": (
        "robossl_envs.doctor:command",
        "say what an environment lacks on this machine; `data PATH`: what would hurt in a data set",
    ),
    "explore-loop": (
        "robossl_envs.explore:explore_loop",
        "look where an encoder finds things new, train it, look again",
    ),
    "load": ("robossl_serving.load:load", "have a running server load a model, or roll it back to a version"),
    "serve": ("robossl_serving.command:serve", "answer control loops over gRPC, the newest frame first"),
}

# Kinds of frame sources that `robossl probe --data KIND:NAME` takes, besides stores and folders.
PROBE_FRAMES = {"env": "robossl_envs.probe_frames:EnvFrames"}

# Class of the simulator in which `robossl transfer` rolls out policies.
SIMULATOR = "robossl_envs.rollouts:EnvSimulator"

# Classes of clients for remote encoders, by the scheme of the address (grpc://). Their argument is "host:port".
ENCODERS = {"grpc": "robossl_client.client:EncoderClient"}

# Function that returns the titles of environments by their ids.
ENVIRONMENTS = "robossl_envs.listing:environments"


class Registry(Mapping[str, str]):
    """Names of one kind of object, such as methods. Each name stands for an object, written as "module:attribute".

    Built-in names (those of robossl) come first, then those of plugins in installed packages. A name that itself has
    the form "module:attribute" is always accepted; the module is looked up in installed packages, then in the working
    folder.

    Args:
        kind: Word for one object in messages, such as "method".
        group: Group of entry points in which installed packages declare more names.
        built_in: The built-in names, each with its "module:attribute".
        check: Function that returns what is wrong with a plugin's object, such as "must be a function"; "" if nothing.
    """

    def __init__(self, kind: str, *, group: str, built_in: Mapping[str, str], check: Callable[[Any], str]) -> None:
        self.kind, self.group, self.built_in, self._check = kind, group, built_in, check
        self._resolved: dict[str, Any] = {}

    def __getitem__(self, name: str) -> str:
        return self.built_in.get(name) or (name if ":" in name else self._plugins[name].value)

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from self._plugins

    def __len__(self) -> int:
        return len(self.built_in) + len(self._plugins)

    def resolve(self, name: str) -> Any:
        """Import and return the object that a name stands for.

        Raises:
            InputError: the name is unknown, two packages declare it, its object cannot be imported, or the object is of
                another kind.
        """
        if name not in self._resolved:
            self._resolved[name] = self._import(name)
        return self._resolved[name]

    def usable(self) -> Iterator[str]:
        """Yield the built-in names and the names of plugins that can be imported; print why other plugins cannot."""
        for name in self:
            try:
                if name not in self.built_in:
                    self.resolve(name)
            except InputError as error:
                _say(str(error))
            else:
                yield name

    def name_of(self, thing: type) -> str:
        """Return the name of a class.

        If `resolve` has found the class by a name, return this name. Otherwise return the name that this registry has
        for the class, or "module:Class" if it has none.
        """
        target = f"{thing.__module__}:{thing.__qualname__}"
        given = (name for name, known in self._resolved.items() if known is thing)
        listed = (name for name, known in self.items() if known == target)
        return next(given, None) or next(listed, target)

    def package(self, name: str) -> str:
        """Return the installed package that declares a name; "" for built-in names and for "module:attribute"."""
        return _package(self._plugins[name]) if name in self._plugins else ""

    def problems(self) -> list[str]:
        """Return a message for each name that an installed package declares but that cannot be used."""
        return list(self._unused.values())

    def source_files(self, name: str) -> list[Path]:
        """Return a plugin's source files: its module, or all modules in the folder if the module is in a package.

        For a built-in or unknown name, the list is empty.
        """
        if name in self.built_in or name not in self:
            return []
        self.resolve(name)
        module = sys.modules[self[name].partition(":")[0]]
        path = Path(inspect.getfile(module))
        return sorted(path.parent.glob("*.py")) if module.__package__ else [path]

    @property
    def _plugins(self) -> dict[str, EntryPoint]:
        return self._found[0]

    @property
    def _unused(self) -> dict[str, str]:
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[dict[str, EntryPoint], dict[str, str]]:
        """Return the plugins of installed packages by name, and messages that say why other names are not used.

        A name is not used if it is built in, or if two packages declare it.
        """
        by_name: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: (entry.name, _package(entry))):
            by_name.setdefault(entry.name, []).append(entry)
        plugins: dict[str, EntryPoint] = {}
        unused: dict[str, str] = {}
        for name, entries in by_name.items():
            packages = " and ".join(map(_package, entries))
            values = " or ".join(entry.value for entry in entries)
            about = f"the {self.kind} {name!r} of {packages}"
            if name in self.built_in:
                unused[name] = f"{about} is not used, for robossl has its own; name it {values}"
            elif len(entries) > 1:
                unused[name] = f"{about} is there twice; uninstall one of them, or name it {values}"
            else:
                plugins[name] = entries[0]
        return plugins, unused

    def _import(self, name: str) -> Any:
        if name in self.built_in:
            if name in self._unused:
                _say(self._unused[name])
            return pkgutil.resolve_name(self[name])
        if name in self._unused:
            raise InputError(self._unused[name])
        if name not in self:
            raise InputError(f"{suggest_name(self.kind, name, self)}, or name your own: MODULE:ATTRIBUTE")
        if ":" in name:
            search_working_folder()
        package = self.package(name)
        about = f"the {self.kind} {name!r}" + (f" of the package {package}" if package else "")
        try:
            found = pkgutil.resolve_name(self[name])
        except Exception as error:  # the module's own code may raise any error
            here = f"it is looked for in packages and {os.getcwd()}"
            if isinstance(error, ModuleNotFoundError):
                here += "; start in the folder of the module, or install it"
            next_step = f"mend or uninstall {package}" if package else here
            raise InputError(f"{about} cannot be imported ({describe_error(error)}); {next_step}") from error
        wrong = self._check(found)
        if wrong:
            got = "a class" if isinstance(found, type) else type_name(found)
            # Say what the object is only if it has the wrong type. For a faulty class, "is a class" would add nothing.
            is_type_wrong = wrong.startswith("must be a ") and not wrong.startswith(f"must be {got} ")
            raise InputError(f"{about} {wrong}" + (f"; {self[name]} is {got}" if is_type_wrong else ""))
        return found


def search_working_folder() -> None:
    """Let imports find modules in the working folder.

    This folder is searched last, so that a file in it does not hide an installed package.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def code_name(thing: type | Callable[..., Any]) -> str:
    """Return the name of a class or function with its module, such as "my_source.MySource", for messages."""
    return f"{thing.__module__}.{thing.__qualname__}"


def type_name(value: object) -> str:
    """Return the type of a value with its article, such as "an int", for messages; "None" for None."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' or name == 'ndarray' else 'a'} {name}"


def takes(function: Callable[..., Any], *arguments: str, **named: str) -> bool:
    """Return whether a function or class can be called with these arguments. Their values do not matter."""
    try:
        inspect.signature(function).bind(*arguments, **named)
    except (TypeError, ValueError):
        return False
    return True


def describe_error(error: Exception) -> str:
    """Return where and why the code of a plugin failed, as "file:line: KeyError: 'x'"."""
    return f"{_place(error)}{type(error).__name__}: {reason(error)}"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"


def _place(error: Exception) -> str:
    """Return where the import of a module failed, as "file:line: "; "" if it failed before the module ran."""
    machinery = (__file__, pkgutil.__file__, importlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    last = frames[-1]
    return "" if last.filename in machinery else f"{last.filename}:{last.lineno}: "


def _say(line: str) -> None:
    # Print in the main process only, because worker processes would repeat the same lines.
    if multiprocessing.parent_process() is None:
        print(f"robossl: {line}", file=sys.stderr)
