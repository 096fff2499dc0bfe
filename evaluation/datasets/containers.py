"""Where image files lie: a folder, a tar or a zip archive. Archives are read in memory; nothing is unpacked to disk."""

import contextlib
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from spaces.errors import InputError
from spaces.files.reading import open_file, parsing, read_bytes

_DECOMPRESSORS: dict[str, Callable[[BinaryIO], io.BufferedIOBase] | None] = {
    ".tar": None, ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.xz": lzma.open, ".txz": lzma.open
}  # fmt: skip
ARCHIVE_SUFFIXES = (*_DECOMPRESSORS, ".zip")

# Bounds on what an archive may unpack to, far above any image set's: small files that unpack to endless ones end here.
LARGEST_FILE = 64 << 20  # bytes of one image file, packed or not
ALWAYS_ALLOWED = 128 << 20  # bytes in all, whatever the archive's own size
LARGEST_RATIO = 100  # of unpacked to packed size, beyond that
MOST_FILES = 10_000  # whatever the archive's own size
BYTES_PER_FILE = 16  # of a packed archive, at least, beyond that


@dataclass(frozen=True)
class Listing:
    """Names in POSIX form, relative to the container; hidden ones are left out."""

    files: frozenset[str]
    folders: frozenset[str]


class Container(Protocol):
    path: Path
    kind: str  # for people

    @property
    def listing(self) -> Listing: ...

    def stamp(self, part: str) -> list:
        """What changes when the files of ``part`` do, as JSON can hold it."""
        ...

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each of the files, in the order that is fastest."""
        ...


def open_container(path: Path) -> Container:
    """The folder or archive at ``path``. Raises InputError for anything else."""
    if path.is_dir():
        return Folder(path)
    if path.name.lower().endswith(".zip"):
        return ZipArchive(path)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return TarArchive(path)
    raise InputError(f"data set '{path}' is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})")


def plain_name(path: Path) -> str:
    """The name of a folder or archive, without the archive's suffix."""
    suffix = next((s for s in sorted(ARCHIVE_SUFFIXES, key=len) if path.name.lower().endswith(s)), "")
    return (path.name[: -len(suffix)] if suffix and not path.is_dir() else path.name) or "data"


class Folder:
    """A folder; of its content only ``train/<class>/*`` and ``test/<class>/*`` is looked at."""

    kind = "image folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _entries(self) -> dict[str, tuple[int, ...] | None]:
        """Name → ``_stamp`` of a file, None of a folder."""
        found: dict[str, tuple[int, ...] | None] = {}
        with _reading(self.path):
            for part in ("train", "test"):
                if (self.path / part).is_dir():
                    found[part] = None
                    self._scan(part, 2, found)
        return found

    def _scan(self, folder: str, levels: int, found: dict[str, tuple[int, ...] | None]) -> None:
        with os.scandir(self.path / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if _hidden(entry.name):
                    continue
                about = entry.stat()
                if stat.S_ISREG(about.st_mode):
                    found[name] = stamp_of(about)
                elif not stat.S_ISDIR(about.st_mode):
                    raise InputError(f"{self.path}/{name} is a pipe or a device, not a file")
                elif levels:
                    found[name] = None
                    self._scan(name, levels - 1, found)

    @cached_property
    def listing(self) -> Listing:
        folders = frozenset(name for name, about in self._entries.items() if about is None)
        return Listing(frozenset(self._entries) - folders, folders)

    def stamp(self, part: str) -> list:
        lines = sorted(
            f"{name} {about}" for name, about in self._entries.items() if about and name.startswith(f"{part}/")
        )
        return [
            hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
        ]  # in JSON they would take long

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            yield name, read_bytes(self.path / name, LARGEST_FILE)


class _Archive:
    kind = "archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_file(path) as file:
            about = os.fstat(file.fileno())
        self._stamp = [*stamp_of(about)]
        self._allowed = ALWAYS_ALLOWED + LARGEST_RATIO * about.st_size
        self._most_files = MOST_FILES + about.st_size // BYTES_PER_FILE

    def stamp(self, part: str) -> list:  # noqa: ARG002 — an archive changes as a whole
        return self._stamp

    def _refuse_bomb(self) -> NoReturn:
        raise InputError(
            f"{self.path} unpacks to far more than a set of images would (a file above {LARGEST_FILE >> 20} MiB, more "
            f"than {self._allowed >> 20:,} MiB in all, or more than {self._most_files:,} files); unpack it yourself and "
            "give the folder"
        )

    def _listing(self, files: Iterable[str], folders: Iterable[str]) -> Listing:
        parents = {parent for name in (*files, *folders) for parent in _parents(name)}
        return Listing(frozenset(files), frozenset(parents | set(folders)))

    def _name(self, raw: str) -> str | None:
        """In plain form; None where hidden. Raises InputError for a path that leads out of the archive."""
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        if raw.startswith("/") or ".." in parts:
            raise InputError(f"{self.path} holds the unsafe path {raw!r}; pack train/ and test/ with relative paths")
        return None if not parts or any(map(_hidden, parts)) else "/".join(parts)


class TarArchive(_Archive):
    """A tar archive, plain or compressed. Only regular files count."""

    def _open(self) -> "_Bounded":
        suffix = max((s for s in _DECOMPRESSORS if self.path.name.lower().endswith(s)), key=len)
        packed = open_file(self.path)
        decompress = _DECOMPRESSORS[suffix]
        content = packed if decompress is None else decompress(packed)
        return _Bounded(content, packed, self._allowed, self._refuse_bomb)

    @cached_property
    def _members(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Offset and size of the files by name, and the folders."""
        files: dict[str, tuple[int, int]] = {}
        folders: list[str] = []
        with _reading(self.path), contextlib.closing(self._open()) as content:
            # The type of tarfile's argument has write(), too, which reading never calls.
            with tarfile.open(fileobj=content, mode="r:") as archive:  # type: ignore[call-overload]
                number = 0
                while (member := archive.next()) is not None:
                    archive.members.clear()  # or tarfile keeps every one
                    number += 1
                    if number > self._most_files or not 0 <= member.size <= LARGEST_FILE:
                        self._refuse_bomb()
                    self._note(member, files, folders)
            content.seek(archive.offset)
            if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
                raise EOFError("its end is missing")
            while content.read(1 << 20):  # to the end of a compressed file, where its checksum is
                pass
        return files, folders

    def _note(self, member: tarfile.TarInfo, files: dict[str, tuple[int, int]], folders: list[str]) -> None:
        name = self._name(member.name)
        if name is None:
            return
        if member.isdir():
            folders.append(name)
        elif member.isreg() and not member.issparse():
            files[name] = (member.offset_data, member.size)
        else:
            raise InputError(f"{self.path}: {name!r} is a link or special file; pack the files themselves")

    @cached_property
    def listing(self) -> Listing:
        return self._listing(*self._members)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        files, _ = self._members
        with _reading(self.path), contextlib.closing(self._open()) as content:
            for name in sorted(names, key=files.__getitem__):
                offset, size = files[name]
                content.seek(offset)
                data = content.read(size)
                if len(data) < size:
                    raise EOFError("it is shorter than before")
                yield name, data


class ZipArchive(_Archive):
    """A zip archive."""

    @cached_property
    def _members(self) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
        files: dict[str, zipfile.ZipInfo] = {}
        folders: list[str] = []
        with open_file(self.path) as file, _reading(self.path), zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            sizes = [member.file_size for member in members]
            if len(sizes) > self._most_files or max(sizes, default=0) > LARGEST_FILE or sum(sizes) > self._allowed:
                self._refuse_bomb()
            for member in members:
                name = self._name(member.filename.replace("\\", "/"))
                if name is None:
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise InputError(f"{self.path}: {name!r} is a link; pack the files themselves")
                if member.flag_bits & 1:
                    raise InputError(f"{self.path} is encrypted; unpack it and give the folder")
                if member.is_dir():
                    folders.append(name)
                else:
                    files[name] = member
        return files, folders

    @cached_property
    def listing(self) -> Listing:
        return self._listing(*self._members)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        files, _ = self._members
        with open_file(self.path) as file, _reading(self.path), zipfile.ZipFile(file) as archive:
            for name in sorted(names, key=lambda name: files[name].header_offset):
                yield name, archive.read(files[name])  # no more than its stated size, and its checksum is looked at


class _Bounded:
    """A file for reading that ends with ``refuse()`` where more than ``allowed`` bytes come out of it."""

    def __init__(self, file: io.BufferedIOBase, packed: BinaryIO, allowed: int, refuse: Callable[[], NoReturn]) -> None:
        self._file, self._packed, self._allowed, self._refuse = file, packed, allowed, refuse
        self.tell = file.tell

    def seek(self, place: int) -> int:
        if not 0 <= place <= self._allowed:  # to go there means to unpack all that lies before
            self._refuse()
        return self._file.seek(place)

    def close(self) -> None:
        self._file.close()
        self._packed.close()  # which decompressors leave open

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_FILE or self.tell() > self._allowed:  # an extended header may claim any size
            self._refuse()
        return self._file.read(size)


def _hidden(name: str) -> bool:
    """Left behind by file managers, not meant as data."""
    return name.startswith(".") or name == "__MACOSX"


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def stamp_of(about: os.stat_result) -> tuple[int, ...]:
    """What tells a file from any other that lay, or lies, in its place: no copy has its inode and time of change."""
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    """Raises InputError that names the file where something cannot be read."""
    return parsing(
        path, "cannot be read as an archive", ": truncated, damaged or packed in an unusual way; get a whole copy"
    )
