"""The checker for other shapes of code: a function and its derivative, a layer, a whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minicvae.gradcheck.check import check_gradients
from minicvae.gradcheck.report import Report

__all__ = ["check_layer", "check_model", "check_pair"]


def check_pair(f: Callable[..., Any], df: Callable[..., Any], inputs: Any, **options: Any) -> Report:
    """Check df, where dL/dx = dL/dy · df(*inputs) with y = f(*inputs).

    So df is the gradient of an f that returns a number, or the derivative, element by element, of an f that acts on
    each element by itself. With several inputs df returns a tuple. Options as in `check_gradients`.
    """

    def forward(*values: Any) -> tuple[Any, Callable[[Any], Any]]:
        def backward(dy: Any) -> Any:
            slopes = df(*values)
            return tuple(dy * s for s in slopes) if isinstance(slopes, (tuple, list)) else dy * slopes

        return f(*values), backward

    return check_gradients(forward, inputs, **options)


def check_layer(layer: Any, *inputs: Any, method: str = "differences", **options: Any) -> Report:
    """Check every input and every parameter of a layer.

    layer: has `forward(*inputs) -> (y, backward)`, and `named_parameters()`, pairs of a name and an object with a
    float64 `value`, a `grad` and `zero_grad()`; without `named_parameters` only the inputs are checked. The complex
    step has to be asked for: a compiled layer would be compiled anew for it. Other options as in `check_gradients`.
    """
    parameters = dict(layer.named_parameters()) if hasattr(layer, "named_parameters") else {}

    def forward(*values: Any) -> tuple[Any, Callable[[Any], Any]]:
        y, plain = layer.forward(*values)

        def backward(dy: Any) -> Any:
            for parameter in parameters.values():
                parameter.zero_grad()
            return plain(dy)

        return y, backward

    return check_gradients(
        forward,
        inputs,
        {name: p.value for name, p in parameters.items()},
        lambda: {name: p.grad for name, p in parameters.items()},
        method=method,
        **{"title": type(layer).__name__} | options,
    )


def check_model(model: Any, x: Any, c: Any, *, eps: Any, elements: int = 8, **options: Any) -> Report:
    """Check the gradient of a whole model's loss by every parameter.

    model: has `loss_and_gradients(x, c, eps=eps) -> (losses, gradients)` with the number `losses["loss"]`, and
    `parameters`, name -> float64 array that the loss reads; where it also has `losses(x, c, eps=eps) -> losses`, no
    backward is computed in vain. Where it has `goals` (network -> the losses that its parameters descend, with their
    weights), each gradient is held to the slope of its own network's goal, in which networks with another goal stand
    still. eps: the noise, which has to be given, for a loss that draws its own is another function at each call.
    elements: by default few, for a loss of a whole model is costly; see `check_gradients`, which also explains the
    other options.
    """
    found: dict[str, np.ndarray] = {}
    parameters: dict[str, np.ndarray] = dict(model.parameters)
    held = {name: value.copy() for name, value in parameters.items()}
    goals = getattr(model, "goals", {})

    def losses() -> Mapping[str, float]:
        return model.losses(x, c, eps=eps) if hasattr(model, "losses") else model.loss_and_gradients(x, c, eps=eps)[0]

    def forward() -> tuple[float, Callable[[float], None]]:
        def backward(dy: float) -> None:
            found.update({name: dy * g for name, g in model.loss_and_gradients(x, c, eps=eps)[1].items()})

        if all(goal == {"loss": 1} for goal in goals.values()):
            return float(losses()["loss"]), backward
        return game(), backward

    def game() -> float:
        """The sum of all goals, in each of which only the parameters that descend it have moved."""
        moved, total = {name: value.copy() for name, value in parameters.items()}, 0.0
        try:
            for goal in {tuple(goal.items()): goal for goal in goals.values()}.values():
                for name, value in parameters.items():
                    value[...] = (moved if goals[name.split(".")[0]] == goal else held)[name]
                values = losses()
                total += sum(weight * float(values[term]) for term, weight in goal.items())
        finally:
            for name, value in parameters.items():
                value[...] = moved[name]
        return total

    return check_gradients(
        forward, (), parameters, found, elements=elements, **{"title": type(model).__name__} | options
    )
