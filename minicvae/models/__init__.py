"""Models: the conditional VAE and the named presets."""
