"""The directory of a PyTorch archive, read before PyTorch reads any of it: true sizes, unambiguous names.

PyTorch's own reader finds members by name without regard to case, takes the first of two, and trusts the sizes. The
members checked here must be the ones that PyTorch loads afterwards, and must not decompress to more than the file
holds. PyTorch stores tensors uncompressed and compresses only the source code of TorchScript.

Knows zip, not PyTorch. Thread: any.
"""

import zipfile
from pathlib import Path
from types import TracebackType

from forebay_server.engines.errors import ModelFileError

MOST_MEMBERS = 100_000  # a large language model has some thousand
MOST_COMPRESSED_BYTES = 64 << 20  # of compressed members, decompressed; source code is some MB at most
_LOCAL_HEADER_BYTES = 30
_END = b"PK\x05\x06"
_END_BYTES = 22
_ENCRYPTED = 1


class Archive:
    """An open archive whose directory has been checked. Use it as a context manager.

    Args:
        path: of the file.

    Raises:
        ModelFileError: it is no archive, or one that PyTorch did not write.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
            raise self._error(f"not a PyTorch archive: {error}") from None
        try:
            self._check(path)
        except BaseException:
            self._zip.close()
            raise

    @property
    def names(self) -> list[str]:
        """The members, without the folder that holds them all."""
        return [name.partition("/")[2] for name in self._zip.namelist()]

    def read(self, name: str) -> bytes:
        """Return a member of `names`. Raises ModelFileError: it is damaged."""
        root = self._zip.namelist()[0].partition("/")[0]
        try:
            return self._zip.read(f"{root}/{name}")
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
            raise self._error(f"{name} cannot be read: {error}") from None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._zip.close()

    def _check(self, path: Path) -> None:
        members = self._zip.infolist()
        if not members or len(members) > MOST_MEMBERS:
            raise self._error(f"{len(members)} members, but a model has 1 to {MOST_MEMBERS}")
        with path.open("rb") as file:
            file.seek(-_END_BYTES, 2)
            if not file.read(_END_BYTES).startswith(_END):
                raise self._error("something follows the archive's directory: save the model again")
        names = [member.filename for member in members]
        if len({name.lower() for name in names}) < len(names):
            raise self._error("two members of the same name")
        roots = {name.partition("/")[0] for name in names}
        if len(roots) > 1 or not all(_is_plain(name) for name in names):
            raise self._error("members outside the archive's own folder")
        self._check_sizes(members)

    def _check_sizes(self, members: list[zipfile.ZipInfo]) -> None:
        end, compressed_bytes = 0, 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < end or (end == 0 and member.header_offset):
                raise self._error("members that overlap, or something before them: this is no model")
            end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
            if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._error(f"{member.filename} is encrypted, or compressed as PyTorch does not")
            if member.compress_type == zipfile.ZIP_DEFLATED:
                compressed_bytes += member.file_size
            elif member.file_size != member.compress_size:
                raise self._error(f"{member.filename} has two sizes")
        if compressed_bytes > MOST_COMPRESSED_BYTES:
            raise self._error(
                f"unfolds to {compressed_bytes >> 20} MiB, of which at most {MOST_COMPRESSED_BYTES >> 20} are taken: "
                "save it with PyTorch, which does not compress tensors"
            )

    def _error(self, message: str) -> ModelFileError:
        return ModelFileError(f"{self._name}: {message}")


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return (
        len(parts) > 1
        and name.isascii()
        and name.isprintable()
        and "\\" not in name
        and not {"", ".", ".."} & set(parts)
    )
