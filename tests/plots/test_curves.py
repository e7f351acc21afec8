"""The curves of a training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae import plots

TERMS = ("loss", "reconstruction", "kl")


def history(epochs, validation=True, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"{which}{term}": list(rng.random(epochs) * 100) for term in TERMS for which in ("", "val_")[: 1 + validation]
    }


@given(epochs=st.integers(1, 40), validation=st.booleans(), called=st.sampled_from([None, "test images"]))
def test_each_term_has_a_panel_with_its_lines(epochs, validation, called):
    told = history(epochs, validation) | {"seconds": [1.0] * epochs}
    figure = plots.curves(told, called) if called else plots.curves(told)
    assert [axes.get_title() for axes in figure.axes] == ["loss = reconstruction + β KL", "reconstruction", "KL"]
    for term, axes in zip(TERMS, figure.axes, strict=True):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats per image")
        names = [term, f"val_{term}"] if validation else [term]
        assert len(axes.lines) == len(names)
        for name, line, kind in zip(names, axes.lines, ("training", called or "validation"), strict=False):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, epochs + 1))
            np.testing.assert_array_equal(line.get_ydata(), told[name])
            assert line.get_label() == f"{kind}, {told[name][-1]:.1f} at the end"
        assert len(axes.get_legend().get_texts()) == len(names)


def test_a_single_epoch_can_be_seen_and_its_axis_counts_whole_epochs():
    for axes in plots.curves(history(1)).axes:
        assert all(line.get_marker() != "" for line in axes.lines)
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_the_legend_lies_beside_the_data_and_within_the_picture(epochs):
    figure = plots.curves(history(epochs))
    figure.draw_without_rendering()
    whole = figure.bbox
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        labels = axes.xaxis.get_tightbbox()
        assert not legend.overlaps(axes.bbox)
        assert not legend.overlaps(labels)
        assert whole.x0 <= legend.x0 < legend.x1 <= whole.x1
        assert whole.y0 <= legend.y0 < legend.y1 <= whole.y1


def test_what_is_no_history_is_refused_by_name():
    with pytest.raises(TypeError, match=r"history: expected a dict of lists.*got list"):
        plots.curves([1.0])
    with pytest.raises(ValueError, match=r"history: .*missing: reconstruction, kl"):
        plots.curves({"loss": [1.0], "reconstruction": []})
    with pytest.raises(ValueError, match=r"history: expected lists of one length.*'val_kl': 1"):
        plots.curves(history(2) | {"val_kl": [1.0]})
