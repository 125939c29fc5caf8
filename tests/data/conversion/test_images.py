"""Folders of pictures: what lies in them is stored, or told, or refused by its name; Pillow says what is right."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from click.testing import CliRunner
from heliostat.data import SourceError
from heliostat.data.conversion.convert import convert, write_source
from heliostat.data.conversion.from_images import ImageSource
from heliostat.data.conversion.pictures import orientation, turned, upright, why_not
from heliostat.data.views.decode import decode_image
from heliostat.scripts.cli import main
from PIL import Image, ImageOps

pytestmark = pytest.mark.engine

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def picture(path, turned: int = 0, **options):
    """A picture in a new folder; `turned` is its EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = turned
        options["exif"] = exif
    Image.fromarray(PIXELS).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


def account_of(root, **options) -> list[str]:
    source = ImageSource(root, **options)
    list(source.record_batches())
    return [str(entry) for entry in source.account.entries]


def test_pictures_are_stored_as_they_are_class_by_class(root, tmp_path):
    picture(root / "dog" / "deep" / "3.JPG", format="JPEG")
    picture(root / "ant" / "1.bmp")
    dataset = convert(root, tmp_path / "set")
    found = columns_of(dataset)
    assert dataset.metadata["class_names"] == {"y": ["ant", "cat", "dog"]}
    assert found["y"].tolist() == [0, 1, 1, 2, 2]
    files = ["ant/1.bmp", "cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/3.JPG"]
    assert found["image"].to_list() == [(root / name).read_bytes() for name in files]
    assert account_of(root) == []


def test_what_is_no_picture_of_a_class_is_told(root):
    (root / "labels.csv").write_text("file,y\n")
    (root / "cat" / "notes.txt").write_text("")
    for number in range(4):
        (root / "cat" / f"{number}.webp").write_bytes(b"RIFF")
    (root / "cat" / ".DS_Store").write_text("")
    (root / ".git").mkdir()
    (root / "emu").mkdir()
    found = account_of(root)
    assert len(found) == 6
    assert "cat/.DS_Store: 1 file left out: hidden" in found
    assert ".git: 1 file left out: it lies beside the folders of classes" in found
    assert any(line.startswith("cat/notes.txt: 1 file left out: no picture by its ending") for line in found)
    assert any(line.startswith("*.webp: 4 files left out: no picture by its ending") for line in found)
    assert any(line.startswith("labels.csv: 1 file left out: it lies beside") for line in found)
    assert any(line.startswith("emu: 1 class noticed") for line in found)


def test_links_that_lead_back_are_left_out_and_others_followed(root, tmp_path):
    elsewhere = picture(tmp_path / "elsewhere" / "9.png").parent
    os.symlink(root / "cat", root / "cat" / "again")
    os.symlink(root, root / "dog" / "up")
    os.symlink(elsewhere, root / "dog" / "more")
    os.symlink(elsewhere / "no.png", root / "dog" / "gone.png")
    assert columns_of(convert(root, tmp_path / "set"))["y"].tolist() == [0, 0, 1, 1]
    found = account_of(root)
    assert found == [
        "*: 2 files left out: a link that leads back to a folder that it lies in (cat/again, dog/up)",
        "dog/gone.png: 1 file left out: a link to what is not there",
    ]


def test_a_class_that_is_a_link_to_all_of_them_is_left_out(root):
    os.symlink(root, root / "all")
    os.symlink("itself", root / "itself")
    assert any(line.startswith("all: 1 file left out: a link") for line in account_of(root))


def test_a_pipe_is_told_and_not_waited_for(root, tmp_path):
    os.mkfifo(root / "cat" / "pipe.png")
    assert len(convert(root, tmp_path / "set")) == 3
    assert account_of(root) == ["cat/pipe.png: 1 file left out: a pipe, socket or device"]


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("turn", range(9))
def test_orientations_are_applied_as_pillow_does(tmp_path, turn, ending):
    path = picture(tmp_path / f"a.{ending}", turn)
    data = path.read_bytes()
    assert orientation(data) == max(turn, 1)
    plain = decode_image(data, 3)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert turned(plain, orientation(data)).shape == wanted.shape
    if ending == "png":  # Pillow's decoder of JPEG may differ in the last bit
        assert np.array_equal(turned(plain, orientation(data)), wanted)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(upright(data)))), turned(plain, orientation(data)))


@pytest.mark.parametrize("size", [2, 3, 11, 12, 30, 40])
def test_a_header_that_was_cut_short_has_no_orientation(tmp_path, size):
    assert orientation(picture(tmp_path / "a.jpg", 6).read_bytes()[:size]) == 1


def test_turned_pictures_are_counted_or_turned(root, tmp_path):
    path = picture(root / "cat" / "turned.jpg", 6)
    (line,) = account_of(root)
    assert line.startswith("image: 1 picture noticed: EXIF orientation")
    (line,) = account_of(root, upright=True)
    assert line.startswith("image: 1 picture changed")
    source = ImageSource(root, upright=True)
    dataset = write_source(source, tmp_path / "set", {"columns": source.columns})
    image = columns_of(dataset)["image"].row(2)
    assert np.array_equal(decode_image(image, 3), turned(decode_image(path.read_bytes(), 3), 6))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_other_bmps_have_the_pixels_that_pillow_sees(tmp_path, mode):
    path = tmp_path / "a.bmp"
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert why_not(path.read_bytes()) is None
    assert np.array_equal(decode_image(path.read_bytes(), 3), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({14: b"\x0c\0\0\0"}, "OS/2"),
        ({30: b"\1\0\0\0"}, "compressed BMP"),
        ({30: b"\3\0\0\0"}, "order of its own"),
    ],
    ids=["core header", "RLE", "bit fields"],
)
def test_bmps_that_would_be_decoded_to_other_pixels_are_refused(tmp_path, change, said):
    Image.fromarray(PIXELS).save(tmp_path / "a.bmp")
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    for place, value in change.items():
        data[place : place + len(value)] = value
    assert said in (why_not(bytes(data)) or "")


@pytest.fixture
def bad(root):
    """Three of nine files cannot be decoded."""
    for number in range(3):
        picture(root / "cat" / f"{number + 3}.jpg")
    good = (root / "cat" / "3.jpg").read_bytes()
    (root / "cat" / "0.jpg").write_bytes(b"<html>")
    (root / "cat" / "3b.jpg").write_bytes(good[: len(good) // 2])
    (root / "dog" / "0.png").write_bytes(b"")
    return root


def test_all_pictures_that_cannot_be_decoded_are_named_at_once(bad, tmp_path):
    with pytest.raises(
        SourceError, match=r"3 of the pictures(.|\n)*cat/0\.jpg: .*3c 68(.|\n)*cat/3b\.jpg(.|\n)*dog/0\.png"
    ):
        convert(bad, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_pictures_that_cannot_be_decoded_can_be_left_out(bad, tmp_path):
    source = ImageSource(bad, bad="drop")
    dataset = write_source(source, tmp_path / "set", {"columns": source.columns})
    names = ["cat/1.png", "cat/2.png", "cat/3.jpg", "cat/4.jpg", "cat/5.jpg", "dog/1.png"]
    assert columns_of(dataset)["image"].to_list() == [(bad / name).read_bytes() for name in names]
    lines = [str(entry) for entry in source.account.entries]
    assert [line.split(":")[0] for line in lines] == ["cat/0.jpg", "cat/3b.jpg", "dog/0.png"]


@pytest.mark.parametrize("first_row", range(7))
def test_leaving_out_goes_on_where_it_was_interrupted(bad, first_row):
    """What the rows before had left out was counted then; what follows is left out again."""
    whole = ImageSource(bad, bad="drop")
    images = [image for rows in whole.record_batches() for image in rows.batch["image"].to_pylist()]
    before = whole.account.settle(first_row)
    rest = ImageSource(bad, bad="drop")
    rest.account.restore(before)
    assert [image for rows in rest.record_batches(first_row) for image in rows.batch["image"].to_pylist()] == images[
        first_row:
    ]
    assert set(rest.account.entries) == set(whole.account.entries)


@pytest.mark.parametrize("upright", [False, True])
def test_pictures_can_be_kept_as_they_are(bad, upright):
    cut = (picture(bad / "cat" / "turned.jpg", 6)).read_bytes()[:200]
    (bad / "cat" / "turned.jpg").write_bytes(cut)
    batches = ImageSource(bad, bad="keep", upright=upright).record_batches()
    images = [image for rows in batches for image in rows.batch["image"].to_pylist()]
    assert len(images) == 10
    assert cut in images


def test_a_folder_in_which_the_first_pictures_are_bad_tells_all_of_them(bad):
    source = ImageSource(bad, bad="drop")
    source.piece_bytes = 1
    assert sum(len(rows.batch) for rows in source.record_batches()) == 6
    assert [entry.name for entry in source.account.entries] == ["cat/0.jpg", "cat/3b.jpg", "dog/0.png"]


def test_a_file_that_cannot_be_read_stops_the_conversion(bad):
    source = ImageSource(bad, bad="drop")
    (bad / "cat" / "2.png").unlink()
    with pytest.raises(SourceError, match=r"cat/2\.png cannot be read: No such file"):
        list(source.record_batches())


def test_an_interrupted_conversion_has_the_account_of_an_undisturbed_one(bad, tmp_path):
    """Dropped pictures, turned ones and what lies beside them, on the command line's way."""
    picture(bad / "cat" / "a.jpg", 6)
    (bad / "notes.txt").write_text("")
    options = {"bad_pictures": "drop", "upright": True, "rows_per_shard": 1, "piece_bytes": 1}
    whole = convert(bad, tmp_path / "whole", **options)
    names = ["notes.txt", "cat/0.jpg", "cat/3b.jpg", "image", "dog/0.png"]
    assert sorted(entry.name for entry in whole.account) == sorted(names)

    def stop(now):
        if now.num_rows == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(bad, tmp_path / "set", on_progress=stop, **options)
    again = convert(bad, tmp_path / "set", resume=True, **options)
    assert again.fingerprint == whole.fingerprint
    assert set(again.account) == set(whole.account)


def test_options_for_pictures_are_refused_for_others(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    for options, flag in (({"bad_pictures": "drop"}, "--bad-pictures"), ({"upright": True}, "--upright")):
        with pytest.raises(SourceError, match=f"{flag}. is for images"):
            convert(tmp_path / "x.npy", tmp_path / "set", **options)


def test_the_command_line_drops_and_turns_pictures(bad, tmp_path):
    picture(bad / "cat" / "a.jpg", 6)
    arguments = ["convert", str(bad), str(tmp_path / "set"), "--bad-pictures", "drop", "--upright"]
    result = CliRunner().invoke(main, arguments, prog_name="heliostat")
    assert result.exit_code == 0, result.output
    assert "cat/0.jpg: 1 picture left out" in result.output
    assert "image: 1 picture changed" in result.output


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(SourceError, match="has no images"):
        ImageSource(tmp_path)
    with pytest.raises(SourceError, match="no folder of images"):
        convert(tmp_path / "none", tmp_path / "set", kind="images")


def test_pictures_without_a_folder_of_their_class_are_told_so(root, tmp_path):
    with pytest.raises(SourceError, match=r"lie in no folder of a class.*give the folder above"):
        convert(root / "cat", tmp_path / "set")


def test_a_link_to_all_classes_gets_no_number(root):
    os.symlink(root, root / "all")
    assert ImageSource(root).metadata == {"class_names": {"y": ["cat", "dog"]}}


def test_names_that_are_no_utf8_are_names(root, tmp_path):
    os.rename(root / "cat" / "1.png", os.fsencode(root / "cat") + b"/\xff.png")
    os.rename(root / "dog", os.fsencode(root) + b"/\xfe")
    dataset = convert(root, tmp_path / "set")
    assert columns_of(dataset)["y"].tolist() == [0, 0, 1]
    assert dataset.metadata["class_names"] == {"y": ["cat", "\udcfe"]}


def save(path, mode: str, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).convert("RGB" if mode == "I;16" else mode).save(path, **options)


def test_what_decoding_does_not_give_of_a_picture_is_told(root):
    others = [Image.fromarray(PIXELS + 9), Image.fromarray(PIXELS + 99)]
    save(root / "cat" / "3.png", "RGBA")
    save(root / "cat" / "4.png", "LA")
    save(root / "cat" / "5.png", "P", transparency=3)
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257).save(root / "cat" / "6.png")
    save(root / "cat" / "7.png", "RGB", save_all=True, append_images=others)
    save(root / "dog" / "8.gif", "RGB", save_all=True, append_images=others)
    save(root / "dog" / "9.gif", "RGB")
    save(root / "dog" / "9.jpg", "CMYK")
    assert account_of(root) == [
        "image: 3 pictures noticed: an alpha channel, which decode() leaves out unless channels=4",
        "image: 1 picture noticed: 16 bits per channel, of which decode() gives the upper 8",
        "image: 2 pictures noticed: an animation, of which decode() gives the first picture",
    ]


def test_a_picture_that_is_turned_keeps_its_alpha_channel(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = Image.open(io.BytesIO(upright((tmp_path / "a.png").read_bytes())))
    np.testing.assert_array_equal(
        np.asarray(found), np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    )


def test_a_folder_in_which_no_picture_can_be_decoded_is_refused(tmp_path):
    picture(tmp_path / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="none of its 1 pictures can be decoded"):
        account_of(tmp_path, bad="drop")
