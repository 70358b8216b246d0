"""Import arrows: who may see whom. Every import counts, lazy ones and those for types too."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = {
    "robossl": "robossl",
    "robossl_envs": "envs/robossl_envs",
    "robossl_serving": "serving/robossl_serving",
    "robossl_client": "serving/robossl_client",
}

# From the ground up: a module sees only levels below its own, and itself. Modules not named here are free.
LEVELS = (
    ("robossl.errors", "robossl.names"),
    ("robossl.plugins",),
    ("robossl.views", "robossl.ranks"),
    ("robossl.augment", "robossl.encoder", "robossl.losses", "robossl.heads", "robossl.teacher"),
    ("robossl.method", "robossl.data"),
    ("robossl.methods",),
    ("robossl.measure",),
    ("robossl.evaluate",),
    ("robossl.probes",),
    ("robossl.run",),
    ("robossl.train",),
    ("robossl.assemble",),
    ("robossl.pretrain",),
    ("robossl.listing",),
    ("robossl.cli",),
)

# (who, must not see, who of them may after all)
FORBIDDEN = (
    ("robossl", ("robossl_envs", "robossl_serving"), ()),
    ("", ("robossl.cli",), ("robossl.__main__",)),
    ("", ("torch.distributed",), ("robossl.ranks",)),
    ("robossl.methods", ("robossl.data",), ()),
    ("", ("pickle",), ("robossl.weights",)),  # which names the error that torch.load raises
    ("", ("cv2", "lightning", "pytorch_lightning", "lerobot"), ()),
)

CLIENT_SEES = {"numpy", "grpc", "google", "robossl_client"} | set(sys.stdlib_module_names)
NAMED_AS_STRINGS_IN = "robossl.plugins"  # the one table that names the other packages

# Import names that differ from the name of the package that brings them, and those imported only where present.
BROUGHT_BY = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "markupsafe": "jinja2",
    "onnxruntime": "onnxruntime-gpu",
    "prometheus_client": "prometheus-client",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
OPTIONAL = {"trackio"}


def sees(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            yield ".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("import_module", "resolve_name", "__import__"):
                yield node.lineno, str(node.args[0].value).partition(":")[0]
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"):
            yield node.lineno, ast.unparse(node)


def level_of(module: str) -> int | None:
    levels = [level for level, names in enumerate(LEVELS) for name in names if sees(module, name)]
    return levels[0] if levels else None


def refused(module: str, name: str) -> str | None:
    """Why a module must not import a name; None where it may."""
    own, other = level_of(module), level_of(name)
    if own is not None and other is not None and own <= other:
        family = [known for known in LEVELS[own] if sees(module, known)]
        if not sees(name, family[0]):
            return "not below it"
    for who, names, exceptions in FORBIDDEN:
        hit = sees(module, who) and any(sees(name, forbidden) for forbidden in names)
        if hit and not any(sees(module, exception) for exception in exceptions):
            return "forbidden"
    if sees(module, "robossl_client") and name.partition(".")[0] not in CLIENT_SEES:
        return "the client has numpy, grpcio and protobuf only"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for module, tree in modules(root):
        for line, name in imports(tree):
            why = refused(module, name)
            if why:
                found.append(f"{module}:{line} imports {name}: {why}")
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            named = re.fullmatch(r"robossl_(envs|serving)[\w.:]*", text)
            if named and sees(module, "robossl") and module != NAMED_AS_STRINGS_IN:
                found.append(f"{module} names {text!r}: only {NAMED_AS_STRINGS_IN} does")
    return found


def test_the_arrows_hold() -> None:
    assert len(list(modules(ROOT))) > 10
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("robossl/views.py", "from robossl.encoder import Encoder", "robossl.views:1 imports robossl.encoder.Encoder"),
        ("robossl/losses.py", "def f():\n    import robossl.method", "robossl.losses:2 imports robossl.method"),
        ("robossl/methods/x.py", "from robossl import train", "robossl.methods.x:1 imports robossl.train"),
        ("robossl/methods/x.py", "from robossl.data.store import Store", "robossl.methods.x:1 imports"),
        (
            "robossl/data/x.py",
            "from robossl.methods import METHODS",
            "robossl.data.x:1 imports robossl.methods.METHODS",
        ),
        ("robossl/data/x.py", "import_module('robossl.train')", "robossl.data.x:1 imports robossl.train"),
        (
            "robossl/train.py",
            "if TYPE_CHECKING:\n    from robossl.cli import main",
            "robossl.train:2 imports robossl.cli",
        ),
        ("robossl/losses.py", "import torch\ntorch.distributed.all_reduce(x)", "imports torch.distributed.all_reduce"),
        ("robossl/losses.py", "from torch import distributed", "robossl.losses:1 imports torch.distributed"),
        ("robossl/report.py", "import robossl_serving.server", "robossl.report:1 imports robossl_serving.server"),
        (
            "robossl/report.py",
            "x = 'robossl_envs.collect:collect'",
            "robossl.report names 'robossl_envs.collect:collect'",
        ),
        ("serving/robossl_client/card.py", "import yaml", "robossl_client.card:1 imports yaml"),
        ("serving/robossl_client/card.py", "from robossl.errors import InputError", "imports robossl.errors"),
        ("serving/robossl_serving/x.py", "from robossl.cli import main", "robossl_serving.x:1 imports robossl.cli"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, message: str) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert [found for found in violations(tmp_path) if message in found]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("robossl/__main__.py", "from robossl.cli import main"),
        ("robossl/ranks.py", "import torch.distributed as dist"),
        ("robossl/plugins.py", "x = 'robossl_envs.collect:collect'"),
        ("robossl/methods/simsiam.py", "from robossl.methods.simclr import x\nfrom robossl.losses import y"),
        ("robossl/evaluate/knn.py", "from robossl.data.store import Store"),
        ("serving/robossl_serving/x.py", "from robossl.errors import InputError\nimport robossl_client.card"),
        ("serving/robossl_client/x.py", "import json, numpy.typing, grpc\nfrom google.protobuf import message"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, path: str, source: str) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert violations(tmp_path) == []


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    declared = {re.split(r"[^\w-]", each)[0] for each in listed}
    ours = set(PACKAGES) | set(sys.stdlib_module_names) | OPTIONAL
    imported = {name.partition(".")[0] for _, tree in modules(ROOT) for _, name in imports(tree)} - ours
    assert {BROUGHT_BY.get(name, name) for name in imported} <= declared


def test_nothing_is_unpickled() -> None:
    calls = [
        (module, node)
        for module, tree in modules(ROOT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load")
    ]
    safe = {"weights_only=True", "allow_pickle=False"}
    assert [module for module, call in calls if not safe & {ast.unparse(keyword) for keyword in call.keywords}] == []
