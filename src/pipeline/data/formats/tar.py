"""Tar archives: whole or refused."""

import tarfile
from typing import Self


class WholeMember(tarfile.TarInfo):
    """A member of a tar archive, as `tarfile.open(tarinfo=WholeMember)` reads it.

    Where a header is cut off or damaged, tarfile takes the members before it for all that there are.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next member.

        Raises:
            ReadError: it is damaged, or the file ends without the mark of an archive's end.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} after {archive.offset:,} bytes") from None
