"""The memory of pipeline add-data does not grow with the data."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from memory_peaks import peaks_of_adding
from PIL import Image


def pack(archive, name, content):
    if isinstance(archive, zipfile.ZipFile):
        archive.writestr(name, content)
        return
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.open, zipfile.ZipFile], ids=["tar", "zip"])
def test_only_the_name_and_the_digest_of_a_small_picture_stay_in_memory(clone, tmp_path, kind):
    rng = np.random.default_rng(0)
    peaks = []
    for count in (5_000, 65_000):  # 4 and 51 MB as arrays
        with kind(tmp_path / f"{count}", "w") as archive:
            for number in range(count):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file, "BMP")
                pack(archive, f"{'ab'[number % 2]}/{number}.bmp", file.getvalue())
        peaks.append(peaks_of_adding(clone, tmp_path / f"{count}", "28x28"))
    assert peaks[1][1] - peaks[0][1] < 60_000 * 0.6e-3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(clone, tmp_path):
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((320, 240))
        file = io.BytesIO()
        coarse.save(file, "JPEG")
        photos.append(file.getvalue())
    peaks = []
    for count in (300, 1800):  # 45 and 270 MB as arrays
        folder = tmp_path / f"photos{count}"
        for number in range(count):
            path = folder / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photos[number % 20])
        peaks.append(peaks_of_adding(clone, folder, "224x224"))
    assert peaks[1][1] - peaks[0][1] < 40
    # The images of the training set are never in memory together, only pieces of a few megabytes.
    assert peaks[1][1] - peaks[1][0] < 300
