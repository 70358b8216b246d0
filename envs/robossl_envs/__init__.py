"""Gymnasium environments with controllable nuisances, exploring agents, and data collection."""

import gymnasium

from robossl_envs.factors import VARIED

for _name, _task, _steps in (
    ("Push", "robossl_envs.push:Push", 200),
    ("Reach", "robossl_envs.reach:Reach", 60),
    ("Sort", "robossl_envs.sort:Sort", 300),
    ("Choose", "robossl_envs.choose:Choose", 60),
):
    for _kind, _kwargs in (("", {}), ("Varied", {"vary": VARIED}), ("Home", {"home": True})):
        gymnasium.register(
            f"robossl/{_name}{_kind}-v0",
            entry_point="robossl_envs.tabletop:Tabletop",
            kwargs={"task": _task, **_kwargs},
            max_episode_steps=_steps,
            # Switch off gymnasium's checker: it takes a tenth of a step's time, and our tests check the same things.
            disable_env_checker=True,
        )
