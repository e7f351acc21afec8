"""The table of a model's layers, as Keras users know it."""

from __future__ import annotations

from dataclasses import fields

from minicvae.layers import Layer, trace
from minicvae.models.base import Trainable
from minicvae.parameters import Parameter
from minicvae.tables import table

__all__ = ["summary"]


def summary(model: Trainable) -> str:
    """Layers with weights (and those that change shape), their output shapes and parameter counts, as text."""
    with trace(*model.networks) as record:
        for name, network in model.networks:
            network.forward(*model.example(name))
    rows, totals = [], dict.fromkeys((name for name, _ in model.networks), 0)
    for entry in record:
        own = [value for value in vars(entry.layer).values() if isinstance(value, Parameter)]
        if not own and any(True for _ in entry.layer.children()):
            continue
        count = sum(p.size for p in own)
        totals[entry.name.split(".")[0]] += count
        shape = ", ".join(map(str, ("n", *entry.output.shape[1:])))
        rows.append([entry.name, _signature(entry.layer), f"({shape})", f"{count:,}"])
    wide = max(11, *map(len, totals))
    lines = [
        table(["layer", "type", "output", "parameters"], rows, "<<<>"),
        "",
        *(f"{name:<{wide}} {said}" for name, said in model.facts.items()),
        *(f"{name:<{wide}} {count:,} parameters" for name, count in totals.items()),
        f"{'total':<{wide}} {model.parameters.size:,} parameters, {model.dtype}, device {model.device}",
    ]
    return "\n".join(lines)


def _signature(layer: Layer) -> str:
    """Dense(794, 256, relu): the type and the fields that are set."""
    values = [getattr(layer, f.name) for f in fields(layer)]
    return f"{type(layer).__name__}({', '.join(str(v) for v in values if v not in ('', 'linear'))})"
