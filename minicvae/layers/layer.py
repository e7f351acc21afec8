"""What a layer is: a dataclass of sizes, some parameters, and a forward that returns its own backward.

    y, backward = layer.forward(x)        # nothing is kept in the layer
    dx = backward(dy)                     # writes the parameters' gradients, returns dL/dx

No hidden cache and no state between calls: the closure `backward` holds what it needs, so a layer can run several
times in one step and nothing is overwritten. A backward may be called once, because a second call would count its
gradients twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from minicvae.kernels import Array, Reference, load
from minicvae.parameters import Parameter, Parameters

__all__ = ["Backward", "Layer", "Trace", "once", "trace"]

Backward = Callable[..., Any]


def once(backward: Backward) -> Backward:
    """`backward`, which refuses to run a second time."""
    called = False

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal called
        if called:
            raise RuntimeError(
                "backward was called twice for one forward; its gradients would count double: run forward again"
            )
        called = True
        return backward(*args, **kwargs)

    guarded.__name__, guarded.__doc__ = backward.__name__, backward.__doc__  # functools.wraps takes 6 us, each time
    return guarded


@dataclass(eq=False)
class Layer:
    """The base of all layers. A subclass is a dataclass: its fields are its sizes and its layers within.

    `__post_init__` declares the parameters as attributes; `forward(*inputs)` returns (output, backward), where
    `backward(dy, need_dx=True)` writes the parameters' gradients and returns dL/dinput (a tuple where there are
    several inputs; None for labels). `need_dx=False`, or a bool for each input, leaves out what nobody reads.
    """

    def forward(self, *inputs: Any) -> tuple[Any, Backward]:
        """Run the layer; return its output and its backward."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The layers within, by name, in the order of the fields."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Layer):
                yield field.name, value
            elif isinstance(value, (tuple, list)):
                yield from ((f"{field.name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Layer))

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers within, each before its own children, by dotted name."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters, by dotted name, in the order of `named_layers`."""
        for path, layer in self.named_layers(prefix):
            for name, value in vars(layer).items():
                if isinstance(value, Parameter):
                    yield (f"{path}.{name}" if path else name), value

    def attach(self, kernels: Reference) -> None:
        """Let this layer and all within compute on `kernels`."""
        for _, layer in self.named_layers():
            layer.kernels = kernels

    def initialise(self, device: str = "cpu", dtype: str = "float32", seed: int = 0) -> Parameters:
        """Give the layer memory and weights of its own, to run it outside a model."""
        kernels = load(device)
        self.attach(kernels)
        return Parameters(self.named_parameters(), kernels, dtype, seed)

    kernels = Reference()


class Trace(NamedTuple):
    """One layer's run: its dotted name, the layer, its inputs and its output."""

    name: str
    layer: Layer
    inputs: Sequence[Array]
    output: Array


@contextmanager
def trace(*roots: tuple[str, Layer]) -> Iterator[list[Trace]]:
    """Record every layer that runs inside the `with` block, in the order in which they finish.

    For reports (a summary, the first tensor that went wrong), not for training. roots: (name, layer) pairs.
    """
    record: list[Trace] = []

    def recording(name: str, layer: Layer) -> Callable[..., Any]:
        plain = layer.forward

        def forward(*inputs: Any) -> tuple[Any, Backward]:
            y, backward = plain(*inputs)
            record.append(Trace(name, layer, inputs, y))
            return y, backward

        return forward

    traced = [pair for name, root in roots for pair in root.named_layers(name)]
    for name, layer in traced:
        layer.forward = recording(name, layer)  # type: ignore[method-assign]
    try:
        yield record
    finally:
        for _, layer in traced:
            del layer.forward
