"""The agents, which choose the actions while frames are collected.

`AGENTS` maps the name of each agent to the path of its class. A class is imported only when it is used, so that the
names are known without importing torch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, cast

from robossl.common.suggest import suggest_name
from robossl.errors import InputError

if TYPE_CHECKING:
    from robossl_envs.agents.agent import Actor, Learner

AGENTS = {
    "count": "robossl_envs.agents.count:CountAgent",
    "expert": "robossl_envs.agents.expert:ExpertAgent",
    "noisy_expert": "robossl_envs.agents.expert:NoisyExpertAgent",
    "novelty": "robossl_envs.agents.novelty:NoveltyAgent",
    "ornstein_uhlenbeck": "robossl_envs.agents.ornstein_uhlenbeck:OrnsteinUhlenbeckAgent",
    "pink": "robossl_envs.agents.pink:PinkNoiseAgent",
    "random": "robossl_envs.agents.random:RandomAgent",
    "rnd": "robossl_envs.agents.rnd:RNDAgent",
}


def resolve_agent(name: str) -> type[Actor] | type[Learner]:
    """Return the class of an agent.

    Raises:
        InputError: no agent has that name.
    """
    if name not in AGENTS:
        raise InputError(suggest_name("agent", name, AGENTS))
    found: type[Actor] | type[Learner] = pkgutil.resolve_name(AGENTS[name])
    return found


def needs_encoder(name: str) -> bool:
    """Return whether an agent needs the embeddings of an encoder to choose its actions.

    Raises:
        InputError: no agent has that name.
    """
    found = resolve_agent(name)
    return found.learns and cast("type[Learner]", found).needs_encoder
