"""An archive gives the same arrays as its folder; an unsafe or damaged one is refused."""

import bz2
import http.server
import io
import lzma
import shutil
import stat
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from photos import png
from pipeline.errors import PipelineError


def archived(pets, path, members=None, **options) -> None:
    files = sorted(pets.rglob("*.png"), reverse=True) if members is None else members
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"wrapped/{file.relative_to(pets)}")
        return
    with tarfile.open(path, options.get("mode", "w")) as archive:
        for file in files:
            archive.add(file, f"wrapped/{file.relative_to(pets)}")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_gives_the_same_arrays_as_its_folder(clone, pets, tmp_path, name):
    clone.add(pets)
    mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2], "w")
    archived(pets, tmp_path / name, mode=mode)
    clone.add(tmp_path / name, name="mine")
    assert clone.conf("mine")["sha256"] == clone.conf("pets")["sha256"]
    clone.fetch("mine")


def test_a_tar_archive_that_ends_with_a_zip_archive_is_not_taken_for_that(clone, pets, tmp_path):
    shutil.make_archive(str(pets / "zzz"), "zip", pets / "dog")
    archived(pets, tmp_path / "a.tar", [*sorted(pets.glob("*/*.png")), pets / "zzz.zip"])
    assert zipfile.is_zipfile(tmp_path / "a.tar")
    clone.added(tmp_path / "a.tar")
    assert clone.conf("mine")["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize("name", ["pets", "pets.zip"])
def test_the_progress_shows_the_total(clone, pets, tmp_path, name, capsys):
    shutil.make_archive(str(tmp_path / "pets"), "zip", pets)
    (pets / ".hidden.png").touch()
    path = pets if name == "pets" else tmp_path / name
    clone.add(path, name="mine")
    assert f"Reading {path} 30 of 30" in capsys.readouterr().out
    clone.fetch("mine")
    assert f"Reading {path} 30 of 30" in capsys.readouterr().out


def test_the_order_of_the_members_does_not_matter(clone, tmp_path):
    pictures = {
        f"{label}/{number}.png": png(np.full((4, 4), 20 * label + number, np.uint8))
        for label in (1, 2)
        for number in range(9)
    }
    found = []
    for number, names in enumerate((sorted(pictures), sorted(pictures, reverse=True))):
        (tmp_path / f"{number}.zip").write_bytes(zipped(**{name: pictures[name] for name in names}))
        clone.add(tmp_path / f"{number}.zip", name=f"mine{number}")
        found.append(clone.conf(f"mine{number}")["sha256"])
    assert found[0] == found[1]


def test_an_archive_at_an_address_is_downloaded(clone, pets, tmp_path, monkeypatch):
    archived(pets, tmp_path / "served.zip")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        clone.add(f"http://127.0.0.1:{server.server_port}/served.zip", name="mine")
        assert len(clone.fetch("mine")["train_labels"]) == 24
        server.shutdown()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


PICTURE = png(np.zeros((4, 4), np.uint8))


BOMB = PICTURE[:40] + bytes(300_000_000)


def encrypted() -> bytes:
    content = bytearray(zipped(**{"a/1.png": PICTURE}))
    content[6] |= 1
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    return bytes(content)


def with_a_name_that_is_no_text() -> bytes:
    return zipped(**{"ä/1.png": PICTURE}).replace("ä".encode(), b"\xff\xff")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_a_name_that_is_no_text, "a name in its table of contents is not UTF-8"),
        (lambda: zipped(**{"../x.png": PICTURE}), "outside of the archive: refused"),
        (lambda: zipped(**{"/x.png": PICTURE}), "outside of the archive: refused"),
        (lambda: zipped(**{"a\\..\\..\\x.png": PICTURE}), "outside of the archive: refused"),
        (encrypted, "is encrypted"),
        (
            lambda: zipped(**{"a/1.png": PICTURE, "b/2.png": PICTURE})[:-30],
            r"its name ends in \.zip, but it is damaged",
        ),
        (lambda: zipped(**{"a/inner.zip": zipped(**{"a/1.png": PICTURE})}), "has no PNG, .* pictures"),
        (lambda: zipped(**{"a/1.png": BOMB, "b/1.png": BOMB}), "unpacks to more than 268,435,456 bytes"),
        (lambda: lzma.compress(b"no tar"), "can't be read as images"),
        (lambda: bz2.compress(b"no tar"), "can't be read as images"),
        (lambda: b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd, which needs Python 3.14"),
    ],
)
def test_an_archive_that_is_unsafe_or_damaged_is_refused(clone, tmp_path, content, reason):
    (tmp_path / "bad.zip").write_bytes(content())
    with pytest.raises(PipelineError, match=reason):
        clone.add(tmp_path / "bad.zip", name="mine")
    assert not (tmp_path / "x.png").exists()
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


@pytest.mark.parametrize("damage", ["cut between members", "cut in a header", "a bit flipped in a header"])
def test_a_tar_that_breaks_off_or_is_damaged_is_refused(clone, pets, tmp_path, damage):
    archived(pets, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        header = archive.getmembers()[-2].offset
    content = bytearray((tmp_path / "a.tar").read_bytes())
    if damage == "cut between members":
        del content[header:]
    elif damage == "cut in a header":
        del content[header + 100 :]
    else:
        content[header + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(PipelineError, match=f"not a complete zip or tar archive: .* after {header:,} bytes"):
        clone.add(tmp_path / "a.tar", name="mine")
    assert not (clone.workspace.root / "conf" / "data" / "mine.yaml").exists()


def test_links_in_a_tar_are_skipped_and_named(clone, pets, tmp_path):
    archived(pets, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"wrapped/cat/{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    lines = clone.add(tmp_path / "a.tar", name="mine")
    assert "  wrapped/cat/soft.png is a link" in lines
    assert "  wrapped/cat/hard.png is a link" in lines
    assert "  wrapped/cat/pipe.png is a device" in lines


def test_of_the_members_of_a_zip_archive_only_visible_files_are_read(clone, pets, tmp_path):
    archived(pets, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        for hidden in ("__MACOSX/wrapped/cat/._1.png", "wrapped/dog/.2.png", "wrapped/.git/"):
            archive.writestr(hidden, PICTURE)
        archive.writestr("wrapped/cow/", b"")
        link = zipfile.ZipInfo("wrapped/cat/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    lines = clone.add(tmp_path / "a.zip", name="mine")
    assert "The class 'cow' has no images and is left out." in lines
    assert lines[lines.index("Skipped: 1 file.") + 1] == "  wrapped/cat/link.png is a link"
    assert clone.conf("mine")["sources"][0]["images"] == 30


class NameWithoutFlag(zipfile.ZipInfo):
    """A member as macOS writes it."""

    def _encodeFilenameFlags(self):
        return self.filename.encode(), self.flag_bits


@pytest.mark.parametrize("member", [zipfile.ZipInfo, NameWithoutFlag])
def test_names_in_a_zip_archive_may_be_utf_8_without_saying_so(clone, pets, tmp_path, member):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in pets.glob("*/*.png"):
            name = {"cat": "Äpfel", "dog": "Öl", "owl": "owl"}[path.parent.name]
            archive.writestr(member(f"{name}/{path.name}"), path.read_bytes())
    clone.add(tmp_path / "a.zip", name="mine")
    assert clone.conf("mine")["classes"] == ["owl", "Äpfel", "Öl"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("by", ["table", "pattern"])
def test_the_classes_in_an_archive_may_be_in_a_table_or_in_the_names(clone, pets, tmp_path, kind, by):
    (tmp_path / "flat").mkdir()
    rows = ["file_name,label"]
    for path in sorted(pets.glob("*/*.png")):
        path.rename(tmp_path / "flat" / f"{path.parent.name}_{path.name}")
        rows.append(f"{path.parent.name}_{path.name},{path.parent.name.upper()}")
    if by == "table":
        (tmp_path / "flat" / "metadata.csv").write_text("\n".join(rows))
    shutil.make_archive(str(tmp_path / "flat"), kind, tmp_path / "flat")
    settings = () if by == "table" else ("label_pattern=([a-z]+)_",)
    clone.add(tmp_path / f"flat.{kind}", name="mine", settings=settings)
    names = ["CAT", "DOG", "OWL"] if by == "table" else ["cat", "dog", "owl"]
    assert clone.conf("mine")["classes"] == names
