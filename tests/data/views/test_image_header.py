"""The head of an image says what decoding it gives: sizes of all formats, the colours of bitmaps with a palette."""

from __future__ import annotations

import io

import numpy as np
import pytest
from heliostat.data.views.image_header import image_size, with_true_colours
from PIL import Image

HEIGHT, WIDTH = 13, 21


def picture(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


FORMATS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "jpeg with a comment": ("JPEG", {"comment": b"c" * 5000}),
    "jpeg with Exif": ("JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_size_is_that_of_the_decoded_image(name):
    form, options = FORMATS[name]
    assert image_size(encoded(picture(), form, **options)) == (HEIGHT, WIDTH)


def test_a_bitmap_from_top_to_bottom_has_its_size_too():
    data = bytearray(encoded(picture(), "BMP"))
    data[22:26] = (-HEIGHT).to_bytes(4, "little", signed=True)
    assert image_size(bytes(data)) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_bytes", [0, 2, 9, 15, 19])
def test_what_is_cut_within_its_head_is_refused(name, num_bytes):
    form, options = FORMATS[name]
    data = encoded(picture(), form, **options)[:num_bytes]
    if num_bytes < 19 or form in ("JPEG", "BMP", "PNG"):
        with pytest.raises(ValueError, match=r"starts with|ends within|without a frame|\d+×\d+ pixels|IFD"):
            image_size(data if form != "GIF" else data[:9])


@pytest.mark.parametrize("data", [b"\xff\xd8\xff damaged", b"\xff\xd8\xff\xd9", b"text", b"BM" + bytes(60)])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(ValueError, match=r"^it"):
        image_size(data)


@pytest.mark.parametrize("colours", [2, 7, 16, 200])
@pytest.mark.parametrize("turned", [False, True])
def test_a_palette_becomes_true_colours(colours, turned):
    image = picture().quantize(colours)
    if turned:  # from top to bottom
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    data = bytearray(encoded(image, "BMP"))
    if turned:
        data[22:26] = (-HEIGHT).to_bytes(4, "little", signed=True)
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    found = with_true_colours(bytes(data))
    assert int.from_bytes(found[28:30], "little") == 24
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found))), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "L"])
def test_every_bitmap_of_another_library_keeps_its_colours(mode):
    data = encoded(picture(mode), "BMP")
    found = np.asarray(Image.open(io.BytesIO(with_true_colours(data))).convert("RGB"))
    assert np.array_equal(found, np.asarray(picture(mode).convert("RGB")))
    assert (with_true_colours(data) == data) == (mode != "1")


@pytest.mark.parametrize(("place", "value"), [(28, 3), (30, 1), (18, 0), (46, 1), (10, 250)])
def test_a_palette_that_cannot_be_read_is_refused(place, value):
    data = bytearray(encoded(picture().quantize(16), "BMP"))
    data[place : place + 2] = value.to_bytes(2, "little")
    with pytest.raises(ValueError, match=r"bitmap|compressed|colour|buffer"):
        with_true_colours(bytes(data))
