"""Check what a method gives: its encoder, its views, its loss and, once, a gradient. A plugin may give anything."""

from __future__ import annotations

from torch import Tensor

from robossl.common.plugins import code_name, type_name
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method, MethodConfig
from robossl.views import ViewSpec


def check_method(found: object, config: MethodConfig) -> Method:
    """Check that a configuration built a method with an encoder, and return this method.

    Raises:
        InputError: the object is no `Method`, or its attribute `encoder` is no encoder.
    """
    if not isinstance(found, Method):
        raise InputError(
            f"{code_name(type(config))}.build() returned a {code_name(type(found))}; return a method, of a class that "
            "derives from robossl.Method"
        )
    encoder = getattr(found, "encoder", None)
    if not isinstance(encoder, Encoder):
        got = "no self.encoder" if encoder is None else f"{type_name(encoder)} as self.encoder"
        raise InputError(
            f"{code_name(type(found))} has {got}; keep there the encoder that build(encoder) gets, or a copy of it"
        )
    return found


def read_views(method: Method) -> tuple[ViewSpec, ...]:
    """Return the views that a method declares.

    Raises:
        InputError: the method has no `views`, or they are not one or more `ViewSpec`.
    """
    about, wanted = f"{code_name(type(method))}.views()", "return a tuple of ViewSpec, one for each view"
    if type(method).views is Method.views:
        raise InputError(f"{about} is missing; {wanted}")
    found: object = method.views()
    if not isinstance(found, tuple | list) or not found:
        raise InputError(f"{about} returned {_describe(found)}; {wanted}")
    others = [type_name(spec) for spec in found if not isinstance(spec, ViewSpec)]
    if others:
        raise InputError(f"{about} returned {others[0]} among the views; {wanted}")
    return tuple(found)


def check_loss(found: object, method: Method) -> Loss:
    """Check that a forward pass returned a valid `Loss` (see its docstring), and return this `Loss`.

    Types and shapes are checked, but no values.

    Raises:
        InputError: the forward pass returned something else.
    """
    about = f"{code_name(type(method))}.forward()"
    if not isinstance(found, Loss):
        raise InputError(f"{about} returned {_describe(found)}; return robossl.Loss(value, metrics, outputs)")
    wrong = _why_wrong_loss(found)
    if wrong:
        raise InputError(f"{about} returned {wrong}")
    return found


def _why_wrong_loss(loss: Loss) -> str:
    if not _is_scalar(loss.value):
        return f"{_describe(loss.value)} as the loss; it must be a scalar tensor, such as a mean over the samples"
    if not loss.value.requires_grad:
        return "a loss that depends on no parameter; compute it from the encoder's features, and do not detach it"
    if not isinstance(loss.metrics, dict):
        return f"{_describe(loss.metrics)} as metrics; they must be a dict of scalar tensors"
    for name, value in loss.metrics.items():
        if not _is_scalar(value):
            return f"{_describe(value)} as the metric {name!r}; it must be a scalar tensor, such as torch.tensor(0.5)"
    if not isinstance(loss.outputs, tuple | list) or not loss.outputs:
        return f"{_describe(loss.outputs)} as outputs; they must be a tuple of tensors (b, d), one for each view"
    for output in loss.outputs:
        if not isinstance(output, Tensor) or output.ndim != 2:
            return f"{_describe(output)} among the outputs; each must be a tensor (b, d), a row for each sample"
    if loss.weight is not None and not _is_scalar(loss.weight):
        return f"{_describe(loss.weight)} as the weight; it must be a scalar tensor or None"
    return ""


def check_gradient(method: Method) -> None:
    """Check after a backward pass that the encoder learns.

    An encoder without any parameter that requires a gradient passes. It may be a teacher, or the method froze it.

    Raises:
        InputError: the encoder has parameters that require a gradient, but none of them got a gradient.
    """
    trained = [weight for weight in method.encoder.parameters() if weight.requires_grad]
    if trained and all(weight.grad is None for weight in trained):
        raise InputError(
            f"the loss of {code_name(type(method))} gives no parameter of self.encoder a gradient: the encoder would "
            "learn nothing; compute the loss from its features without detach() or no_grad(), or freeze the encoder "
            "with requires_grad_(False) if that is meant"
        )


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"an empty {type(value).__name__}" if isinstance(value, tuple | list) and not value else type_name(value)
