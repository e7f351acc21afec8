"""The mosaic, the sheet of panels and the file."""

import os
import stat

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from minicvae import plots
from minicvae.plots.figures import PAD, Panel, colours, sheet

images = hnp.arrays(
    st.sampled_from([np.uint8, np.float32]),
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    elements=st.integers(0, 1),
)


@given(images=images, columns=st.integers(1, 7), gap=st.integers(0, 3))
def test_a_mosaic_has_every_image_in_its_place_and_fill_everywhere_else(images, columns, gap):
    n, h, w = images.shape
    rows = -(-n // columns)
    expected = np.full((rows * h + (rows - 1) * gap, columns * w + (columns - 1) * gap), 7, images.dtype)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                expected[(i // columns) * (h + gap) + y, (i % columns) * (w + gap) + x] = images[i, y, x]
    got = plots.mosaic(images, columns, gap, fill=7)
    assert got.dtype == images.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (2, 3, 4, 1)])
def test_a_mosaic_refuses_what_are_no_images(shape):
    with pytest.raises(ValueError, match="images: expected shape"):
        plots.mosaic(np.zeros(shape), 2)


@pytest.mark.parametrize(("columns", "gap"), [(0, 1), (-1, 1), (2, -1)])
def test_a_mosaic_refuses_impossible_columns_and_gaps(columns, gap):
    with pytest.raises(ValueError, match="columns, gap"):
        plots.mosaic(np.zeros((2, 3, 3)), columns, gap)


def rendered(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0]


@given(
    n=st.integers(1, 7),
    h=st.integers(2, 9),
    w=st.integers(2, 9),
    columns=st.integers(1, 4),
    below=st.booleans(),
    label=st.sampled_from(["3", "a long name of a class"]),
)
def test_every_pixel_of_a_mosaic_is_drawn_as_a_square_of_whole_screen_pixels(n, h, w, columns, below, label):
    drawn = np.random.default_rng(n).integers(0, 2, (n, h, w)).astype(float)
    panel = Panel(drawn, columns, [label] * columns, ["row"], "across", "down", below)
    figure = sheet("title", [panel, panel])
    screen, whole = rendered(figure), plots.mosaic(drawn, columns, fill=0)
    for axes in figure.axes:
        left, bottom, right, top = np.round(axes.get_window_extent().extents).astype(int)
        scale = (right - left) // whole.shape[1]
        height = len(screen)
        seen = screen[height - top : height - bottom, left:right]
        np.testing.assert_array_equal(seen, np.kron(255 - 255 * whole, np.ones((scale, scale))))


@given(
    columns=st.integers(1, 12),
    label=st.text("Wij ", min_size=1, max_size=30),
    title=st.text("Wij ", min_size=1, max_size=80),
    below=st.booleans(),
)
@example(columns=1, label="3", title="W" * 60, below=False)
def test_nothing_on_a_sheet_is_cut_off_and_no_label_overlaps_the_next_panel(columns, label, title, below):
    panel = Panel(
        np.zeros((2 * columns, 28, 28)), columns, [label] * columns, [label] * 2, label, label, below, framed=[(0, 0)]
    )
    figure = sheet(title, [panel, panel])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    whole = Bbox.union([*boxes, figure._suptitle.get_window_extent()])
    width, height = figure.bbox.size
    assert whole.x0 >= PAD - 1
    assert whole.y0 >= PAD - 1
    assert whole.x1 <= width - PAD + 1
    assert whole.y1 <= height - PAD + 1
    assert figure._suptitle.get_window_extent().y0 >= boxes[0].y1
    assert boxes[0].y0 >= boxes[1].y1


def test_frames_and_lines_run_along_the_gaps_and_leave_the_images_their_size():
    drawn = np.random.default_rng(0).random((6, 4, 5))
    axes, plain = (
        sheet("", [Panel(drawn, 3, framed=framed, ruled=ruled)]).axes[0]
        for framed, ruled in (([(0, 0), (1, 2)], [1, 2]), ([], []))
    )
    for marked in (axes, plain):
        assert (marked.get_xlim(), marked.get_ylim()) == ((-0.5, 16.5), (8.5, -0.5))
    assert axes.get_window_extent().size.tolist() == plain.get_window_extent().size.tolist()
    frames = [(patch.get_xy(), patch.get_width(), patch.get_height()) for patch in axes.patches]
    assert frames == [((-1, -1), 6, 5), ((11, 4), 6, 5)]
    assert [list(line.get_xdata()) for line in axes.lines] == [[5, 5], [11, 11]]
    assert [list(line.get_ydata()) for line in axes.lines] == [[-0.5, 8.5]] * 2


def test_long_column_labels_are_turned_and_short_ones_are_not():
    def turn(label):
        return sheet("", [Panel(np.zeros((2, 28, 28)), 2, ["1", label])]).axes[0].get_xticklabels()[0].get_rotation()

    assert turn("Bag") == 0
    assert turn("a very long class name") > 0


def test_white_is_0_and_black_is_1_whatever_the_images_hold():
    figure = sheet("", [Panel(np.full((1, 4, 4), 0.25), 1)])
    (image,) = figure.axes[0].images
    assert image.get_clim() == (0, 1)
    assert image.get_interpolation() == "nearest"
    axes_box = figure.axes[0].get_window_extent()
    x, y = (int(v) for v in (axes_box.p0 + axes_box.p1) / 2)
    assert abs(int(rendered(figure)[-y, x]) - 191) <= 2


def test_the_palette_has_ten_different_colours_and_more_classes_get_as_many():
    assert len(set(plots.PALETTE)) == 10
    for n in (1, 10, 11, 47):
        assert len(set(colours(n))) == n


def test_a_figure_shows_itself_in_a_notebook_as_a_png():
    assert sheet("", [Panel(np.zeros((1, 4, 4)), 1)])._repr_png_().startswith(b"\x89PNG")


def test_a_figure_is_saved_as_a_png_of_its_own_size(tmp_path):
    figure = sheet("a title", [Panel(np.zeros((1, 4, 4)), 1)])
    path = tmp_path / "new" / "folder" / "figure.PNG"
    plots.save(figure, path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    size = tuple(int.from_bytes(content[i : i + 4]) for i in (16, 20))
    assert size == tuple(figure.bbox.size)


def test_a_figure_that_fails_to_draw_leaves_the_old_file_and_nothing_else(tmp_path):
    class Failing(Figure):
        def savefig(self, file, **kwargs):
            super().savefig(file, **kwargs)
            raise OSError("disk full")

    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        plots.save(Failing(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["figure.png"]


def test_a_saved_figure_can_be_read_by_whom_the_umask_lets(tmp_path):
    plots.save(Figure(), tmp_path / "figure.png")
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE((tmp_path / "figure.png").stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_name_of_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.png, got .*figure\.pdf"):
        plots.save(Figure(), tmp_path / "figure.pdf")
    assert os.listdir(tmp_path) == []
