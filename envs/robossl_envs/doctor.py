"""`robossl doctor`: say what this machine lacks for an environment, with the command that installs it."""

from __future__ import annotations

import ctypes
import difflib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium

from robossl.errors import InputError
from robossl_envs.collection.environment import import_env_module

TRIAL_SECONDS = 120.0
EGL, OSMESA, GL = "libEGL.so.1", "libOSMesa.so.8", "libGL.so.1"
GL_LINE = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri and MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa"
CV2_LINE = "pip uninstall opencv-python && pip install opencv-python-headless, or apt-get install libgl1"

# Program that renders a frame. It runs in another process, because a wrong GL library causes a segmentation fault.
TRIAL = """
import sys, gymnasium, robossl_envs
if sys.argv[2]: __import__(sys.argv[2])
env = gymnasium.make(sys.argv[1], render_mode="rgb_array", disable_env_checker=True)
env.reset(seed=0)
frame = env.render()
print(f"draws {frame.shape[1]}x{frame.shape[0]}")
"""

# {text: remedy}. A remedy applies if the output of a failed TRIAL, or another error message, contains its text.
REMEDIES = {
    "libGL.so.1": f"OpenCV needs {GL}: {CV2_LINE}",
    "eglQueryString": f"MuJoCo finds no OpenGL: {GL_LINE}",
    "gladLoadGL": f"MuJoCo finds no OpenGL: {GL_LINE}",
    "glfw": f"MuJoCo looks for a display; without one set MUJOCO_GL: {GL_LINE}",
    "mjtJoint": "this package does not support the installed mujoco; install an older one: pip install 'mujoco<3.17'",
    "flex_vertedge": "this dm_control does not support the installed mujoco: pip install 'mujoco<4'",
}


@dataclass(frozen=True, slots=True)
class EnvFamily:
    """Environments with the same requirements."""

    about: str
    prefix: str  # start of the environments' ids, or of the modules of their entry points
    modules: dict[str, str]  # required module -> its pip package; importing the first module registers the ids
    pins: dict[str, str] | None = None  # package -> start of the version that is needed
    needs_gl: bool = False
    needs_cv2: bool = False


METAWORLD = dict.fromkeys(("metaworld", "mujoco", "packaging"), "robossl[metaworld]")
FAMILIES = {
    "robossl": EnvFamily("robossl's own", "robossl/", {"robossl_envs": "robossl", "pymunk": "pymunk", "av": "av"}),
    "classic_control": EnvFamily(
        "CartPole, Pendulum", "gymnasium.envs.classic_control", {"pygame": "gymnasium[classic-control]"}
    ),
    "toy_text": EnvFamily("FrozenLake, Taxi", "gymnasium.envs.toy_text", {"pygame": "gymnasium[toy-text]"}),
    "box2d": EnvFamily(
        "LunarLander, CarRacing", "gymnasium.envs.box2d", {"Box2D": "gymnasium[box2d]", "pygame": "gymnasium[box2d]"}
    ),
    "mujoco": EnvFamily(
        "Pusher, Reacher",
        "gymnasium.envs.mujoco",
        {"mujoco": "gymnasium[mujoco]", "imageio": "imageio", "packaging": "packaging"},
        needs_gl=True,
    ),
    "pusht": EnvFamily(
        "gym-pusht", "gym_pusht/", {"gym_pusht": "robossl[pusht]"}, pins={"pymunk": "6"}, needs_cv2=True
    ),
    "metaworld": EnvFamily("MetaWorld", "Meta-World/", METAWORLD, pins={"mujoco": "3.3"}, needs_gl=True),
    "metaworld_drawn_fast": EnvFamily(
        "MetaWorld drawn fast",
        "metaworld/",
        {"robossl_envs.metaworld": "robossl"} | METAWORLD,
        pins={"mujoco": "3.3"},
        needs_gl=True,
    ),
    "aloha": EnvFamily("gym-aloha", "gym_aloha/", {"gym_aloha": "gym-aloha"}, needs_gl=True),
    "minigrid": EnvFamily("MiniGrid", "MiniGrid-", {"minigrid": "minigrid"}),
    "panda": EnvFamily("panda-gym", "Panda", {"panda_gym": "panda-gym"}),
    "robotics": EnvFamily(
        "gymnasium-robotics", "Fetch", {"gymnasium_robotics": "gymnasium-robotics", "mujoco": "mujoco"}, needs_gl=True
    ),
}


def command(argv: Sequence[str]) -> int:
    """Run `robossl doctor [ENV_ID]` or `robossl doctor data PATH`; return the exit code: 0 if all is well, else 1."""
    import tyro

    if argv and argv[0] == "data":
        from robossl.common.arguments import call
        from robossl.data.doctor.command import doctor_data

        return call(doctor_data, list(argv[1:]), prog="robossl doctor data")

    def doctor(env: str = "", /, *, module: str = "") -> int:
        """Say what an environment needs that is missing on this machine, and how to install it.

        `robossl doctor data PATH` examines a data set or a store instead.

        Without an environment, check all families of environments that robossl knows.

        Args:
            env: id of an environment, such as robossl/Push-v0.
            module: package to import first because it registers the environment.
        """
        return examine(env, module) if env else survey()

    return tyro.cli(doctor, args=list(argv), prog="robossl doctor")


def survey() -> int:
    """Check all families of environments and print what is missing; return the exit code.

    The code is 1 if something is missing for robossl's own environments or for an installed family, else 0.
    """
    code = 0
    for name, family in FAMILIES.items():
        missing = [pip for module, pip in family.modules.items() if not _installed(module)]
        if missing and name != "robossl":
            print(f"{family.about}: not installed: pip install {' '.join(map(_quoted, dict.fromkeys(missing)))}")
            continue
        found = find_missing(family)
        code = code or int(bool(found))
        for sentence in found or ["nothing is missing"]:
            print(f"{family.about}: {sentence}")
    return code


def examine(env: str, module: str = "") -> int:
    """Print what one environment lacks, or try to render a frame if it lacks nothing.

    Return 0 if a frame was rendered, else 1.

    Raises:
        InputError: the id is unknown, or the module cannot be imported and no remedy is known.
    """
    if module:
        try:
            import_env_module(module)
        except InputError as error:
            remedy = find_remedy(str(error))
            if not remedy:
                raise
            print(f"{env}: {remedy}")
            return 1
    family = family_of(env)
    found = find_missing(family) if family else []
    if family and not family.prefix.startswith("gymnasium."):
        module = module or next(iter(family.modules))
    sentences = found or [try_rendering(env, module)]
    for sentence in sentences:
        print(f"{env}: {sentence}")
    return int(bool(found) or not sentences[0].startswith("draws"))


def family_of(env: str) -> EnvFamily | None:
    """Return the family of an environment id; None if the id is registered but belongs to no known family.

    Raises:
        InputError: the id is not registered and belongs to no known family.
    """
    for family in FAMILIES.values():
        if env.startswith(family.prefix):
            return family
    if env in gymnasium.registry:
        entry = str(gymnasium.registry[env].entry_point)
        return next((family for family in FAMILIES.values() if entry.startswith(family.prefix)), None)
    near = difflib.get_close_matches(env, gymnasium.registry, n=3, cutoff=0.4) or ["robossl/Push-v0"]
    raise InputError(f"no environment {env!r} is registered or known; the nearest ids are {', '.join(near)}")


def find_missing(family: EnvFamily) -> list[str]:
    """Return one sentence for each missing requirement of a family."""
    found = [
        f"{module} is not installed: pip install {_quoted(pip)}"
        for module, pip in family.modules.items()
        if not _installed(module)
    ]
    for package, start in (family.pins or {}).items():
        version = _version(package)
        if version and not version.startswith(f"{start}."):
            found.append(
                f"it is made for {package} {start}, found {version}: "
                f"pip install '{package}=={start}.*', in a venv of its own"
            )
    if family.needs_gl and not (_loads(EGL) or _loads(OSMESA)):
        found.append(f"it draws with OpenGL and neither {EGL} nor {OSMESA} is there: {GL_LINE}")
    if family.needs_cv2 and _version("opencv-python") and not _loads(GL):
        found.append(f"opencv-python needs {GL}, which is not there: {CV2_LINE}")
    return found


def try_rendering(env: str, module: str = "") -> str:
    """Try to render one frame in another process; return a sentence about the result."""
    argv = [sys.executable, "-c", TRIAL, env, module]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TRIAL_SECONDS, env=_subprocess_env())
    except subprocess.TimeoutExpired:
        return f"drew nothing in {TRIAL_SECONDS:g} s"
    if done.returncode == 0:
        return done.stdout.strip().splitlines()[-1]
    if done.returncode < 0:
        return f"crashed with signal {-done.returncode} while drawing; for OpenGL: {GL_LINE}"
    last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return find_remedy(done.stderr) or f"fails with {last_line}"


def find_remedy(said: str) -> str:
    """Return the remedy for an error with the message `said`; "" if no remedy is known."""
    return next((remedy for sign, remedy in REMEDIES.items() if sign in said), "")


def _subprocess_env() -> dict[str, str]:
    """Return environment variables that let another process find the modules that this process finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if "[" in requirement else requirement
