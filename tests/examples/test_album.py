"""What is done to pictures, without jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from examples.photo_app import album, demo

# For each EXIF orientation, what turns an upright picture into one that is stored that way.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(album, "DATA", tmp_path)
    monkeypatch.setattr(album, "PICTURES", tmp_path / "pictures")
    return tmp_path


@pytest.mark.parametrize("orientation", STORED)
def test_a_thumbnail_is_upright(orientation: int, data: Path) -> None:
    upright = Image.new("L", (80, 40), 10)
    upright.paste(250, (0, 0, 20, 10))  # a light corner, top left
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[demo.ORIENTATION] = orientation
    (upright.transpose(turn) if turn is not None else upright).save(data / "stored.jpg", exif=exif)

    album.shrink(data / "stored.jpg", data / "small.jpg", 40)

    with Image.open(data / "small.jpg") as made:
        assert made.size == (40, 20)
        assert made.convert("L").getpixel((3, 2)) > 200
        assert made.getexif().get(demo.ORIENTATION, 1) == 1
    assert demo.alike(data / "stored.jpg", 40, data / "small.jpg")


def test_the_demonstration_would_see_a_thumbnail_that_lies_on_its_side(data: Path) -> None:
    rocket = demo.REPOSITORY / "examples/photos/rocket.jpg"
    with Image.open(rocket) as stored:
        lying = stored.convert("RGB")
        lying.thumbnail((96, 96))
        lying.save(data / "lying.jpg")
        lying.transpose(Image.Transpose.ROTATE_90).save(data / "upside-down.jpg")
    assert not demo.alike(rocket, 96, data / "lying.jpg")
    assert not demo.alike(rocket, 96, data / "upside-down.jpg")


def test_a_file_that_is_no_image_is_told_apart(data: Path) -> None:
    (data / "notes.txt").write_text("no image")
    with pytest.raises(UnidentifiedImageError):
        album.shrink(data / "notes.txt", data / "small.jpg", 40)
    assert not (data / "small.jpg").exists()


def test_a_write_that_fails_leaves_no_file_under_the_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        album.write(data / "batch" / "photo.jpg", b"half")
    assert album.files(data / "batch") == []


def test_finish_counts_each_photo_once(data: Path) -> None:
    assert [album.finish("batch", name) for name in ("a", "b", "a")] == [1, 2, 2]


def test_the_sheet_holds_every_thumbnail(data: Path) -> None:
    for number in range(5):
        album.write(album.thumbnail("batch", "medium", str(number)), album.jpeg(Image.new("RGB", (192, 100))))
    assert album.draw_sheet("batch") == 5
    with Image.open(album.sheet("batch")) as sheet:
        assert sheet.size == (3 * 200 + 8, 2 * 200 + 8)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a b", "x" * 101, "ä"])
def test_a_name_that_could_leave_the_album_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 100 letters"):
        album.checked(name)
