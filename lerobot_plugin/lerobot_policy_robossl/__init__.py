"""LeRobot's ACT and Diffusion Policy on an encoder of RoboSSL: `--policy.type=robossl_act` and `robossl_diffusion`.

lerobot imports this package by its name, and the import registers both types.
"""

try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError(
        "lerobot_policy_robossl needs lerobot and Python 3.12 or later: "
        "pip install 'lerobot[training,diffusion]>=0.6,<0.7'"
    ) from error

from lerobot_policy_robossl.configuration_robossl import RobosslActConfig, RobosslDiffusionConfig

__all__ = ["RobosslActConfig", "RobosslDiffusionConfig"]
