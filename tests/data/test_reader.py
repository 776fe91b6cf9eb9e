"""Pictures of any format, size and mode are read as arrays of one shape, or refused."""

import contextlib
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.JpegImagePlugin import JpegImageFile
from reading import encoded, settings

from pipeline.data.reader import PictureError, describe, read_picture, read_pixels, read_sized

RNG = np.random.default_rng(0)

PIXELS = RNG.integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
GREY = Image.fromarray(PIXELS[:, :, 0])


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_a_picture_of_the_right_size_is_read_as_it_is(format, options):
    np.testing.assert_array_equal(read_picture(encoded(PICTURE, format, **options), settings()), PIXELS)


def test_a_file_is_read_by_its_content_whatever_its_extension(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(encoded(PICTURE))
    np.testing.assert_array_equal(read_picture(path, settings()), PIXELS)
    smooth = PICTURE.resize((2, 2)).resize((8, 6), Image.Resampling.BILINEAR)
    path = tmp_path / "b.png"
    path.write_bytes(encoded(smooth, "JPEG", quality=100, subsampling=0))
    assert np.abs(read_picture(path, settings()).astype(int) - np.asarray(smooth)).max() < 8


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("P", (8, 6), number) for number in (0, 1)]
    for frame in frames:
        frame.putpalette([250, 10, 10, 10, 250, 10])
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(content, settings())[0, 0].tolist() == [250, 10, 10]


def test_sixteen_bit_pictures_become_eight_bit():
    levels = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    for format in ("PNG", "TIFF"):
        found = read_picture(encoded(Image.fromarray(levels), format), settings(colour="grey"))
        np.testing.assert_array_equal(found, np.rint(levels / 257).astype(np.uint8))


def test_cmyk_becomes_rgb():
    content = encoded(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "TIFF")
    assert read_picture(content, settings())[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("background", "level"), [("black", 0), ("white", 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_show_the_background(mode, background, level):
    options = {}
    if mode == "P":
        image = Image.new("P", (8, 6), 1)
        image.putpalette([0, 0, 0, 9, 99, 200])
        options = {"transparency": 1}
    elif mode in ("RGB", "L"):
        image = Image.new(mode, (8, 6), 77 if mode == "L" else (9, 99, 200))
        options = {"transparency": 77 if mode == "L" else (9, 99, 200)}
    else:
        image = Image.new(mode, (8, 6), (99, 0) if mode == "LA" else (9, 99, 200, 0))
    for colour in ("rgb", "grey"):
        found = read_picture(encoded(image, **options), settings(background=background, colour=colour))
        assert set(found.ravel()) == {level}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 6), (800, 600)])
def test_a_photo_is_turned_by_its_orientation_tag(orientation, size):
    upright = Image.new("RGB", size)
    ImageDraw.Draw(upright).rectangle((0, 0, size[0] // 2 - 1, size[1] // 2 - 1), fill=(255, 255, 255))
    turned = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = upright
    for turn in turned:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_picture(encoded(stored, "JPEG", exif=exif, quality=95), settings(colour="grey"))
    assert found[1, 1] > 200
    assert found[1, -2] < 60
    assert found[-2, 1] < 60
    assert found.shape == (6, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "MPO", "TIFF", "PNG", "WEBP"])
def test_the_size_of_a_photo_is_that_of_the_upright_photo(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Phones add a second picture to a JPEG file, for which Pillow has a name of its own.
    several = {"save_all": True, "append_images": [PICTURE]} if format == "MPO" else {}
    content = encoded(PICTURE, format, exif=exif, **several)
    upright = (6, 8) if orientation < 5 else (8, 6)
    assert describe(content) == (upright, "RGB")
    assert read_sized(content, settings())[1] == upright


def test_the_size_of_a_large_jpeg_is_not_that_at_which_it_was_decoded():
    content = encoded(Image.new("RGB", (1000, 999)), "JPEG")
    assert read_sized(content, settings())[1] == (999, 1000)


def test_resizing_pads_crops_or_stretches():
    # Left third red, the rest blue, twice as wide as high.
    wide = Image.new("RGB", (240, 120), (0, 0, 255))
    wide.paste((255, 0, 0), (0, 0, 80, 120))
    content = encoded(wide)
    square = {"image_size": (12, 12)}
    padded = read_picture(content, settings(**square, resize="pad", background="white"))
    assert (padded[:3] == 255).all()
    assert (padded[-3:] == 255).all()
    assert padded[6, 0].tolist() == [255, 0, 0]
    assert padded[6, -1].tolist() == [0, 0, 255]
    cropped = read_picture(content, settings(**square, resize="crop"))
    # The columns 60 to 180 are left: the red ends after 20 of 120.
    assert cropped[6, 0].tolist() == [255, 0, 0]
    assert cropped[6, 3].argmax() == 2
    assert cropped[6, 6].tolist() == [0, 0, 255]
    stretched = read_picture(content, settings(**square, resize="stretch"))
    assert stretched[0, 2].tolist() == [255, 0, 0]
    assert stretched[0, 8].tolist() == [0, 0, 255]


def test_a_fine_pattern_becomes_grey_not_stripes():
    stripes = np.zeros((600, 800), np.uint8)
    stripes[:, ::2] = 255
    found = read_picture(encoded(Image.fromarray(stripes)), settings(colour="grey"))
    assert found.min() > 110
    assert found.max() < 145


def test_a_large_jpeg_is_read_like_its_lossless_copy():
    smooth = Image.fromarray(RNG.integers(0, 256, (4, 5, 3), np.uint8)).resize((1000, 750), 3)
    found = read_picture(encoded(smooth, "JPEG", quality=95), settings(image_size=(48, 64)))
    exact = read_picture(encoded(smooth), settings(image_size=(48, 64)))
    assert np.abs(found.astype(int) - exact).max() < 8


@pytest.mark.parametrize(
    ("size", "orientation", "changes", "decoded"),
    [
        ((800, 600), 1, {"resize": "pad"}, (100, 75)),
        ((800, 600), 1, {"resize": "crop"}, (200, 150)),
        ((800, 600), 1, {"resize": "stretch"}, (200, 150)),
        ((600, 800), 6, {"resize": "stretch"}, (150, 200)),
        ((800, 600), 1, {"prepare": "digit"}, (800, 600)),  # All of it is searched for the digit.
        ((5000, 1), 1, {"resize": "pad"}, (5000, 1)),
    ],
)
def test_a_large_jpeg_is_decoded_at_an_eighth_or_a_quarter_if_that_is_enough(
    monkeypatch, size, orientation, changes, decoded
):
    found = []
    monkeypatch.setattr(JpegImageFile, "load_end", lambda image: found.append(image.size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stripes = Image.new("RGB", size)
    ImageDraw.Draw(stripes).rectangle((0, 0, size[0] // 2, size[1]), fill=(255, 255, 255))
    read_picture(encoded(stripes, "JPEG", exif=exif), settings(image_size=(60, 160), **changes))
    assert found == [decoded]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_tiny_and_narrow_pictures_are_read(size, resize):
    content = encoded(Image.new("RGB", size, (7, 8, 9)))
    found = read_picture(content, settings(resize=resize))
    assert found.shape == (6, 8, 3)
    assert (7, 8, 9) in {tuple(pixel) for row in found.tolist() for pixel in row}


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def test_an_orientation_after_the_pixels_of_a_png_file_counts_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    content, end = encoded(PICTURE)[:-12], chunk(b"IEND", b"")
    late = content + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + end
    assert read_sized(late, settings())[1] == (8, 6)


HUGE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(1000)))
    + chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, I am a text" * 100, "is not a PNG, JPEG, GIF, BMP, WebP or TIFF picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not a PNG"),
        (encoded(PICTURE)[:60], "is damaged"),
        (encoded(PICTURE.resize((200, 200)), "JPEG")[:-300], "is damaged: .*truncated"),
        (HUGE, r"has 100,000×100,000 pixels, more than data\.reader\.max_pixels, 1,000,000"),
        (encoded(Image.fromarray(np.full((6, 8), -0.5, np.float32)), "TIFF"), "has levels from -0.5"),
        (encoded(Image.fromarray(np.int32([[-1, 5]])), "TIFF"), "has levels from -1 to 5"),
        (encoded(Image.fromarray(np.int32([[0, 65536]])), "TIFF"), "has levels from 0 to 65536"),
    ],
)
def test_incomplete_pictures_and_other_files_are_refused_with_the_reason(content, reason, tmp_path):
    with pytest.raises(PictureError, match=f"The picture {reason}"):
        read_picture(content, settings())
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=rf"a\.png {reason}"):
        read_picture(path, settings())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_picture_with_a_wrong_byte_is_read_or_refused(format):
    content = encoded(PICTURE, format)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            found = read_picture(bytes(damaged), settings(max_pixels=10_000))
        except PictureError:
            continue
        assert (found.shape, found.dtype) == ((6, 8, 3), np.uint8)


def test_a_path_that_is_not_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, reason in (("pipe", "is not a file"), ("folder", "is not a file"), ("nowhere", "is missing")):
        with pytest.raises(PictureError, match=f"{name} {reason}"):
            read_picture(tmp_path / name, settings())


def test_no_file_stays_open(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PICTURE))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path / "a.png", tmp_path):
        with contextlib.suppress(PictureError):
            read_picture(path, settings())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_picture_may_have_as_many_pixels_as_the_limit_says():
    np.testing.assert_array_equal(read_picture(encoded(PICTURE), settings(max_pixels=48)), PIXELS)
    with pytest.raises(PictureError, match="has 8×6 pixels, more than"):
        read_picture(encoded(PICTURE), settings(max_pixels=47))


def test_arrays_are_returned_unchanged_or_refused():
    assert read_pixels(PIXELS, settings()) is PIXELS
    for wrong in (PIXELS.astype(np.float32), PIXELS[:, :, 0], PIXELS[:5]):
        with pytest.raises(PictureError, match=r"it must be uint8 \(6, 8, 3\)"):
            read_pixels(wrong, settings())


def test_importing_the_reader_imports_no_large_library():
    command = "import sys, pipeline.data.reader; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert not {"PIL", "scipy", "tensorflow", "mlflow", "pandas", "hydra"} & set(loaded.stdout.split())


def test_a_picture_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(PictureError("a.png", "is empty")))
    assert (type(error), str(error), error.reason) == (PictureError, "a.png is empty", "is empty")
