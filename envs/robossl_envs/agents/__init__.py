"""AGENTS: who acts while frames are collected, by name; resolved at use, so that naming them imports no torch."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, cast

from robossl.errors import InputError
from robossl.names import suggest_name

if TYPE_CHECKING:
    from robossl_envs.agents.agent import Actor, Learner

AGENTS = {
    "count": "robossl_envs.agents.count:Count",
    "expert": "robossl_envs.agents.expert:Expert",
    "noisy_expert": "robossl_envs.agents.expert:NoisyExpert",
    "novelty": "robossl_envs.agents.novelty:Novelty",
    "ornstein_uhlenbeck": "robossl_envs.agents.ornstein_uhlenbeck:OrnsteinUhlenbeck",
    "pink": "robossl_envs.agents.pink:Pink",
    "random": "robossl_envs.agents.random:Random",
    "rnd": "robossl_envs.agents.rnd:RND",
}


def resolve_agent(name: str) -> type[Actor] | type[Learner]:
    """The class of an agent.

    Raises:
        InputError: no agent has that name.
    """
    if name not in AGENTS:
        raise InputError(suggest_name("agent", name, AGENTS))
    found: type[Actor] | type[Learner] = pkgutil.resolve_name(AGENTS[name])
    return found


def needs_encoder(name: str) -> bool:
    """Whether an agent acts on an encoder's embeddings.

    Raises:
        InputError: no agent has that name.
    """
    found = resolve_agent(name)
    return found.learns and cast("type[Learner]", found).needs_encoder
