"""Warm heads (LP-FT, arXiv:2202.10054): in the first steps, train the heads alone and keep the encoder as it was.

Heads are all weights outside of encoders. They begin with random weights, and their first gradients would change the
features of a pretrained encoder at random.
"""

from __future__ import annotations

from robossl.errors import InputError
from robossl.methods.base import Method, encoders_of


def check_heads(method: Method) -> None:
    """Check that a method has heads that can be trained.

    Raises:
        InputError: all weights that the method trains belong to the encoder.
    """
    inside = {weight for encoder in encoders_of(method) for weight in encoder.parameters()}
    if not any(weight.requires_grad and weight not in inside for weight in method.parameters()):
        raise InputError(
            f"optim.warm_head_steps trains the heads first, but {type(method).__name__} has no heads; set it to 0"
        )


def hold_encoders(method: Method) -> None:
    """Put all encoders (teachers too) into eval mode, in which batch-norms use and keep their running statistics."""
    for encoder in encoders_of(method):
        encoder.eval()


def drop_encoder_gradients(method: Method) -> None:
    """Remove the gradients of all encoders. Optimizers leave a weight without gradient as it is, without decay too."""
    for encoder in encoders_of(method):
        encoder.zero_grad(set_to_none=True)
