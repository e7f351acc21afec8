"""`minicvae summary`: the layers of presets and of runs."""


def test_summary_knows_presets_and_runs(of_classes, run_to_here):
    assert "total       551,728 parameters" in run_to_here("summary", "mlp", "--device", "numpy")
    text = run_to_here("summary", of_classes.folder, "--device", "numpy")
    assert f"{of_classes.config['parameters']:,} parameters" in text
    assert f"Dense({8 * 8 + 3}, 256, relu)" in text
