"""Images are decoded to what another library makes of them, alike in any batch, and start no TensorFlow before."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from heliostat.data import Dataset, write_dataset
from heliostat.data.errors import SelectionError, TransformError
from PIL import Image


def rows_of(dataset: Dataset, ids=None, *, columns=None) -> dict:
    with dataset.reader(columns) as reader:
        return reader.gather(np.arange(len(dataset)) if ids is None else np.asarray(ids))


def images(count: int) -> np.ndarray:
    """Smooth pictures, which JPEG keeps nearly as they are."""
    y, x = np.mgrid[:20, :24]
    phase = np.arange(count)[:, None, None, None]
    waves = np.stack([np.sin(x / 5) + np.cos(y / 6), np.cos(x / 7), np.sin(y / 4)], axis=-1)
    return np.clip(128 + 50 * waves[None] + phase * 3, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Dataset:
    import tensorflow as tf

    pictures = images(20)
    columns = {
        "jpeg": [tf.io.encode_jpeg(one, quality=95).numpy() for one in pictures],
        "png": [tf.io.encode_png(one).numpy() for one in pictures],
        "mixed": [tf.io.encode_png(one[: 10 + n % 2]).numpy() for n, one in enumerate(pictures)],
        "bad": [
            b"\xff\xd8\xff damaged" if n == 13 else tf.io.encode_png(one).numpy() for n, one in enumerate(pictures)
        ],
        "id": np.arange(20),
    }
    return write_dataset(tmp_path_factory.mktemp("images") / "set", columns)


@pytest.mark.engine
def test_images_are_decoded(encoded):
    pictures = images(20)
    view = pickle.loads(pickle.dumps(encoded.decode("png").decode("jpeg", output="image")))
    assert view.schema["png"].shape == (20, 24, 3)
    assert view.schema["jpeg"].kind == "bytes"
    rows = rows_of(view, [3, 19, 0, 3])
    assert np.array_equal(rows["png"], pictures[[3, 19, 0, 3]])
    assert rows["image"].dtype == np.uint8
    assert np.abs(rows["image"].astype(int) - pictures[[3, 19, 0, 3]]).mean() < 3
    grey = rows_of(encoded.decode("png", channels=1), [2])["png"]
    assert grey.shape == (1, 20, 24, 1)


@pytest.mark.engine
def test_decoding_equals_another_library(encoded):
    raw = rows_of(encoded, columns=["jpeg"])["jpeg"]
    expected = np.stack([np.asarray(Image.open(io.BytesIO(raw.row(n)))) for n in range(20)])
    assert np.array_equal(rows_of(encoded.decode("jpeg"), columns=["jpeg"])["jpeg"], expected)


@pytest.mark.engine
def test_images_are_resized_when_asked(encoded):
    import tensorflow as tf

    rows = rows_of(encoded.decode("png", size=(10, 6)), [4])["png"]
    expected = tf.image.resize(images(20)[4], (10, 6), antialias=True).numpy()
    assert rows.shape == (1, 10, 6, 3)
    assert np.abs(rows[0] - expected).max() <= 0.5
    assert np.array_equal(rows_of(encoded.decode("png", size=(20, 24)))["png"], images(20))
    with pytest.raises(
        TransformError, match=r"Row 5 of .* image of 11×24 pixels in column 'mixed'; that of row 0 has 10×24"
    ):
        rows_of(encoded.decode("mixed"), [0, 5, 7])


@pytest.mark.engine
@pytest.mark.parametrize("size", [(20, 24), (9, 31)])
def test_an_image_does_not_depend_on_what_is_decoded_with_it(encoded, tmp_path, size):
    raw = rows_of(encoded, columns=["jpeg", "png"])
    both = [raw["jpeg" if n % 3 else "png"].row(n) for n in range(20)]
    dataset = write_dataset(tmp_path / "set", {"image": both, "jpeg": raw["jpeg"]})
    for column in ("image", "jpeg"):
        view = dataset.decode(column, size=size).select_columns([column])
        together = rows_of(view)[column]
        alone = np.concatenate([rows_of(view, [n])[column] for n in range(20)])
        assert np.array_equal(together, alone)
        assert np.array_equal(rows_of(view, [9, 2, 17, 4, 4])[column], together[[9, 2, 17, 4, 4]])


@pytest.mark.engine
def test_a_damaged_image_is_named(encoded):
    view = encoded.decode("bad")
    assert len(rows_of(view, [0, 12, 14])["bad"]) == 3
    with pytest.raises(
        TransformError, match=r"Row 13 of .*set holds no image that can be decoded in column 'bad' \(11 bytes\)"
    ):
        rows_of(view)
    with pytest.raises(SelectionError, match="'id' is of kind 'tensor'"):
        encoded.decode("id")
    with pytest.raises(SelectionError, match="channels is 2"):
        encoded.decode("png", channels=2)
    with pytest.raises(SelectionError, match="size is 5"):
        encoded.decode("png", size=5)


@pytest.mark.engine
@pytest.mark.parametrize("column", ["jpeg", "png"])
def test_images_that_were_cut_short_are_named(encoded, tmp_path, column):
    raw = rows_of(encoded, columns=[column])[column].to_list()
    raw[6] = raw[6][: len(raw[6]) // 2]
    with pytest.raises(TransformError, match="Row 6 of"):
        rows_of(write_dataset(tmp_path / "set", {"image": raw}).decode("image"))


@pytest.mark.engine
def test_decoding_leaves_no_thread(encoded):
    rows_of(encoded.decode("png"))
    assert not [one for one in threading.enumerate() if one.name.startswith("heliostat-decode")]


def bitmap(seed: int, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).quantize(**options).save(out, "BMP")
    return out.getvalue()


@pytest.mark.engine
def test_bitmaps_with_a_palette_have_their_colours(tmp_path):
    files = [bitmap(0, colors=200), bitmap(1, colors=16), bitmap(2, colors=2)]
    view = write_dataset(tmp_path / "set", {"image": files}).decode("image")
    expected = np.stack([np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in files])
    assert np.array_equal(rows_of(view)["image"], expected)
    packed = bytearray(files[1])
    packed[30] = 1
    broken = write_dataset(tmp_path / "broken", {"image": [files[0], bytes(packed)]}).decode("image", (6, 8))
    with pytest.raises(TransformError, match=r"Row 1 of .*broken .*column 'image' .*it is a compressed BMP"):
        rows_of(broken)


@pytest.mark.engine  # the pictures are made by TensorFlow
def test_a_view_without_a_size_starts_no_tensorflow(encoded):
    program = (
        "import sys; from heliostat.data import open_dataset; view = open_dataset(sys.argv[1]).decode('jpeg');"
        "print(view.schema['jpeg'].shape, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, encoded.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(20, 24, 3) False"


def test_a_first_image_without_a_size_is_named(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"image": [b"\xff\xd8\xff damaged"]})
    with pytest.raises(TransformError, match=r"Row 0 of .*set holds no image .*column 'image' \(11 bytes\)"):
        dataset.decode("image")


@pytest.mark.engine
@pytest.mark.slow
def test_decoding_takes_the_threads_that_tensorflow_was_given(encoded):
    program = """
import sys, threading
import numpy as np, tensorflow as tf
from heliostat.data import open_dataset
from heliostat.data.views import decode
tf.config.threading.set_intra_op_parallelism_threads(3)
seen = []
class Pool(decode.ThreadPoolExecutor):
    def __init__(self, count, **options):
        seen.append(count)
        super().__init__(count, **options)
decode.ThreadPoolExecutor = Pool
with open_dataset(sys.argv[1]).decode("jpeg").reader(["jpeg"]) as reader:
    reader.gather(np.arange(20))
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", program, encoded.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[3]"
