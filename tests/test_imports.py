"""The order of the rooms: a room sees only rooms below it. Every import counts, lazy ones and those for types too."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from places import ROOT
from rooms import PACKAGES, describe, imported_names, read_modules, read_rooms, repeated_classes, room_of

# From the ground up.
ORDER = (
    "errors",
    "common",
    "views",
    "augment",
    "data",
    "robossl_client",
    "encoders",
    "methods",
    "measure",
    "evaluation",
    "exporting",
    "report",
    "probes",
    "policies",
    "training",
    "robossl_envs",
    "robossl_serving",
    "cli",
    "robossl",
)

# Names that only few modules may see.
KEPT = {
    "torch.distributed": {"robossl.common.ranks", "robossl.common.sharding"},
    "pickle": {"robossl.encoders.weights"},  # names the error that torch.load raises
    "robossl.cli.main": {"robossl.__main__"},
}
NOWHERE = ("cv2", "lightning", "pytorch_lightning", "lerobot")
CLIENT_SEES = {"numpy", "grpc", "google", "robossl_client"} | set(sys.stdlib_module_names)
NAMES_OTHER_PACKAGES = "robossl.common.plugins"

# Import names that differ from the name of the package that brings them, and packages that are used only if installed.
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

MODULES = read_modules()
IMPORTS = [(module, line, name) for module, tree in MODULES.items() for line, name in imported_names(tree)]


def sees(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def attributes(tree: ast.Module) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} == set(ORDER)


def test_a_room_sees_only_rooms_below_it() -> None:
    rooms = read_rooms()
    assert [(room, seen) for room in ORDER for seen in rooms[room].sees if ORDER.index(seen) >= ORDER.index(room)] == []


def test_robossl_names_its_other_packages_in_one_module() -> None:
    texts = [
        (module, node.value)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and sees(module, "robossl")
    ]
    named = {module for module, text in texts if re.fullmatch(r"robossl_(envs|serving)[\w.:]*", text)}
    assert named == {NAMES_OTHER_PACKAGES}


def test_parts_of_methods_know_no_method() -> None:
    seen = [name for module, _, name in IMPORTS if sees(module, "robossl.methods.parts")]
    assert [name for name in seen if sees(name, "robossl.methods") and not sees(name, "robossl.methods.parts")] == []


def test_methods_know_no_data() -> None:
    assert [
        (module, name) for module, _, name in IMPORTS if room_of(module) == "methods" and sees(name, "robossl.data")
    ] == []


def test_some_names_are_seen_by_few_modules() -> None:
    for kept, keepers in KEPT.items():
        assert {module for module, _, name in IMPORTS if sees(name, kept)} == keepers, kept
    assert [module for module, tree in MODULES.items() if "torch.distributed" in attributes(tree)] == []
    assert [(module, name) for module, _, name in IMPORTS if any(sees(name, each) for each in NOWHERE)] == []


def test_the_client_sees_numpy_grpcio_and_protobuf_only() -> None:
    seen = {name.partition(".")[0] for module, _, name in IMPORTS if sees(module, "robossl_client")}
    assert seen - CLIENT_SEES == set()


def test_a_public_class_name_occurs_once() -> None:
    assert repeated_classes(MODULES) == {}


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    declared = {re.split(r"[^\w-]", each)[0] for each in listed}
    ours = set(PACKAGES) | set(sys.stdlib_module_names) | OPTIONAL
    imported = {name.partition(".")[0] for _, _, name in IMPORTS} - ours
    assert {BROUGHT_BY.get(name, name) for name in imported} <= declared


def test_nothing_is_unpickled() -> None:
    calls = [
        (module, node)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load")
    ]
    safe = {"weights_only=True", "allow_pickle=False"}
    assert [module for module, call in calls if not safe & {ast.unparse(keyword) for keyword in call.keywords}] == []


def test_the_picture_of_the_rooms_shows_these_imports() -> None:
    picture = (ROOT / "docs" / "figures" / "rooms.svg").read_text(encoding="utf-8")
    assert f">{describe(read_rooms())}<" in picture, (
        "draw it again: python tools/rooms.py --draw docs/figures/rooms.svg"
    )
