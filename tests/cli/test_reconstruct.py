"""`minicvae reconstruct`: images beside what the model makes of them."""

import numpy as np


def test_reconstruct_shows_test_images_beside_what_the_model_makes_of_them(digits, of_classes, tmp_path, run_to_here):
    words = ("--indices", "4", "0", "4", "--device", "numpy", "--out", tmp_path / "a.npz")
    run_to_here("reconstruct", of_classes.folder, *words)
    x, y = digits(30, 1)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["x"], x[[4, 0, 4]])
        np.testing.assert_array_equal(file["c"], y[[4, 0, 4]])
        expected = of_classes.model("numpy").reconstruct(x[[4, 0, 4]], y[[4, 0, 4]])
        np.testing.assert_array_equal(file["reconstruction"], expected)


def test_reconstruct_makes_a_picture_also_of_measured_images(of_attributes, run_to_here):
    text = run_to_here("reconstruct", of_attributes.folder, "--device", "numpy")
    assert text == f"{of_attributes.folder / 'reconstructed.png'}\n"
    assert (of_attributes.folder / "reconstructed.png").read_bytes().startswith(b"\x89PNG")
