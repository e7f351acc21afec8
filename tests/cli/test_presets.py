"""`minicvae presets`: the list of them."""

import re

from minicvae.models.presets import PRESETS


def test_presets_are_listed_with_their_sizes_within_80_columns(run_to_here):
    text = run_to_here("presets")
    assert max(map(len, text.splitlines())) <= 80
    for name, preset in PRESETS.items():
        (row,) = re.findall(rf"^{name} .*$", text, re.MULTILINE)
        _, latent, _, epochs, batch, *_ = row.split()
        assert (latent, epochs, batch) == (str(preset.latent_dim), str(preset.epochs), str(preset.batch_size))
    assert "843,092" in text
    words = " ".join(text.split())
    assert all(word in words for preset in PRESETS.values() for word in preset.summary.split())
