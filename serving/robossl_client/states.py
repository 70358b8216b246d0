"""Check the state that a policy takes beside frames; client, server and local models say the same about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client.card import ACTION, EncoderCard, PolicyContract

_NAMED = 12  # a message names the dimensions of a state if there are at most so many


def as_state(state: object) -> Any:
    """Return a state, such as a list of lists or a torch tensor, as a float32 array; None stays None.

    Raises:
        ValueError: it is not an array of numbers.
    """
    if state is None:
        return None
    try:
        return np.ascontiguousarray(np.asarray(state, np.float32))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"state must be an array of numbers (b, v), got {type(state).__name__} ({error})") from None


def state_problem(
    card: EncoderCard, state: npt.NDArray[np.float32] | None, *, num_frames: int, outputs: Sequence[str]
) -> str | None:
    """Return what is wrong with the state of a request, in one line, or None if it fits.

    A model with a state needs it for its action alone; features do not depend on it.
    """
    policy = card.policy
    if policy is None or policy.state is None:
        return None if state is None else f"{card.name} takes no state, only frames; leave the state out"
    if state is None and ACTION not in outputs:
        return None
    wanted = (num_frames, *policy.state.shape[1:])
    takes = f"the action of {card.name} needs a state, float32 {wanted}{_names(policy)}, one row for each frame"
    if state is None:
        return f"{takes}; got none: pass it, or ask for other outputs than {ACTION!r}"
    if state.shape != wanted:
        return f"{takes}; got {state.shape}"
    return None if np.isfinite(state).all() else f"{takes}; got nan or infinity"


def _names(policy: PolicyContract) -> str:
    return f" ({', '.join(policy.state_names)})" if 0 < len(policy.state_names) <= _NAMED else ""
