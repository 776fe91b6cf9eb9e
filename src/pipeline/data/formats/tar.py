"""Refuse tar archives that are incomplete."""

import tarfile
from typing import Self


class WholeMember(tarfile.TarInfo):
    """A member of a tar archive, for `tarfile.open(tarinfo=WholeMember)`.

    By default, tarfile takes a header that is cut off or damaged for the end of the archive.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next member.

        Raises:
            ReadError: If it is damaged, or the file ends without an end-of-archive marker.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} after {archive.offset:,} bytes") from None
