"""Images that would not fit on the disk or into memory are refused before the work starts."""

from collections import namedtuple

import pytest

from pipeline.errors import PipelineError

Usage = namedtuple("Usage", "free")


def test_images_that_would_not_fit_into_memory_or_on_the_disk_are_refused_at_once(clone, pets, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4_000_000}[name])
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9))
    monkeypatch.setattr("pipeline.data.decode.read_sized", None)
    with pytest.raises(
        PipelineError,
        match=r"30 images of 9999×9999 pixels, rgb, take 9\.0 GB, and a batch of 32 .* 38\.4 GB, .* 16\.4 GB",
    ):
        clone.add(pets, image_size="9999x9999")
    with pytest.raises(
        PipelineError,
        match=r"30 images of 2000×2000 .* and 1\.4 GB in data/raw.*; 1\.0 GB are free at .*smaller",
    ):
        clone.add(pets, image_size="2000")
    with pytest.raises(PipelineError, match=r"and 1\.9 GB in a temporary file; 1\.0 GB are free"):
        clone.add(pets, image_size="4600")


def test_the_space_for_data_that_were_added_before_is_not_checked_again(clone, pets, monkeypatch):
    clone.add(pets)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0))
    (pets / "cat" / "0.png").touch()
    assert clone.add(pets)[-1] == "Everything is as pinned in conf/data/pets.yaml."
