"""Every kind of file that `pipeline predict` reads, each with an image of LEFT and one of RIGHT."""

import csv
import gzip
import io
import tarfile
import zipfile

import numpy as np

from photos import png

SHAPE = (4, 6)
LEFT, RIGHT = np.zeros((2, *SHAPE), np.uint8)
LEFT[:, :3] = RIGHT[:, 3:] = 200


def put_idx(path):
    path.write_bytes(
        b"\0\0\x08\x03" + np.array([2, *SHAPE], ">u4").tobytes() + LEFT.tobytes() + RIGHT.tobytes()
    )


def put_gzipped_idx(path):
    put_idx(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def put_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("b")
        archive.writestr("b/left", png(LEFT))
        archive.writestr("a/right.txt", png(RIGHT))
        archive.writestr("__MACOSX/left", b"nothing")
        archive.writestr("b/.left", b"nothing")


def zip_with_a_name_that_is_no_text():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ä.png", png(LEFT))
    return file.getvalue().replace("ä".encode(), b"\xff\xff")


def put_tar(path):
    with tarfile.open(path, "w:gz") as archive:
        for name, image in (("../../left.png", LEFT), ("right.png", RIGHT)):
            member = tarfile.TarInfo(name)
            member.size = len(png(image))
            archive.addfile(member, io.BytesIO(png(image)))
        link = tarfile.TarInfo("passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def put_table(path, label=True, header=True):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["label"][: int(label)] + [f"pixel{number}" for number in range(24)])
        for image in (LEFT, RIGHT):
            writer.writerow([9][: int(label)] + image.ravel().tolist())


def put_folder(path):
    (path / "below").mkdir(parents=True)
    (path / "10.png").write_bytes(png(RIGHT))
    (path / "9.png").write_bytes(png(LEFT))
    (path / ".hidden").write_bytes(b"nothing")


def put_arrays(path):
    path.mkdir()
    (path / "1").write_bytes(npy(LEFT))
    with (path / "2.csv").open("w", newline="") as file:
        csv.writer(file).writerow(RIGHT.ravel().tolist())


KINDS = {
    "a folder": put_folder,
    "a folder of arrays": put_arrays,
    "IDX": put_idx,
    "gzipped IDX": put_gzipped_idx,
    "ZIP": put_zip,
    "TAR": put_tar,
    "NPY": lambda path: path.write_bytes(npy(np.stack([LEFT, RIGHT]))),
    "NPY with channels": lambda path: path.write_bytes(npy(np.stack([LEFT, RIGHT])[..., None])),
    "NPZ": lambda path: path.write_bytes(npz(images=np.stack([LEFT, RIGHT]), labels=np.arange(2))),
    "CSV": put_table,
    "CSV without labels": lambda path: put_table(path, label=False),
    "CSV without a header": lambda path: put_table(path, header=False),
}


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
