"""Official files: downloaded once, or found in a folder of the user's; checked by MD5 in both cases."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from evaluation.datasets.progress import Watch
from spaces import cache
from spaces.errors import InputError
from spaces.files.reading import open_file, parsing


@dataclass(frozen=True)
class OfficialFile:
    """A published file, and the names of what is used of its content (its own name where it is not packed).

    ``content_md5`` is that of the only member, where the file is one, packed: by it an extracted or repacked copy is known.
    """

    name: str
    url: str
    md5: str
    members: tuple[str, ...]
    content_md5: str = ""


@dataclass(frozen=True)
class Copy:
    """A local copy: the published file itself, or its extracted members."""

    official: OfficialFile
    packed: Path | None
    extracted: Mapping[str, Path]

    @property
    def paths(self) -> list[Path]:
        return [self.packed] if self.packed else list(self.extracted.values())

    @property
    def checked(self) -> bool:
        """Whether it had the published checksum."""
        return self.packed is not None or bool(self.official.content_md5)

    def read(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """Content of the members named in ``sizes``, no more than a byte beyond their stated sizes.

        Raises InputError that names the file where one cannot be read.
        """
        with parsing(self.paths[0], "cannot be read", "; get a whole copy"):
            if self.packed is None:
                return {name: _first(open_file(self.extracted[name]), size) for name, size in sizes.items()}
            if self.packed.name.endswith(".tar.gz"):
                return _from_tar(self.packed, sizes)
            return {name: _first(_unpacked(self.packed), size) for name, size in sizes.items()}


def _first(file: BinaryIO | gzip.GzipFile, size: int) -> bytes:
    with file:
        return file.read(size + 1)


def _unpacked(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open_file(path)


def _from_tar(path: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Of a file whose checksum is the published one, so that nothing in it is foreign."""
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name not in sizes or not member.isreg():
                continue
            if (content := archive.extractfile(member)) is not None:  # as it is of every regular file
                found[member.name] = content.read(sizes[member.name] + 1)
                if len(found) == len(sizes):  # not to the archive's end, which costs a second
                    return found
    raise ValueError(f"it lacks {', '.join(sorted(set(sizes) - set(found)))}")


def find_copies(name: str, files: Sequence[OfficialFile], data_dir: Path | None) -> list[Copy]:
    """A copy of each of the files: in ``data_dir``, or downloaded into the cache where that is None. Raises InputError."""
    if data_dir is None:
        return [Copy(file, _downloaded(name, file, files), {}) for file in files]
    copies = [_local(file, data_dir) for file in files]
    missing = [file.name for file, copy in zip(files, copies) if copy is None]
    if missing:
        unusable = sorted(p.name for p in data_dir.iterdir() if "-py" in p.name and p.name.startswith("cifar"))
        hint = f" ({unusable[0]} is the pickled Python version, which is never read)" if unusable else ""
        raise InputError(
            f"--data-dir '{data_dir}' lacks {', '.join(missing)}, packed or extracted{hint}; get it from {files[0].url}, "
            "or leave --data-dir out to download"
        )
    return [copy for copy in copies if copy is not None]


def _local(file: OfficialFile, folder: Path) -> Copy | None:
    try:
        if not folder.is_dir():
            raise InputError(f"--data-dir '{folder}' is not a folder; give one that holds {file.name}")
        next(folder.iterdir(), None)  # refused where it may not be read
        packed = folder / file.name
        if packed.is_file():
            digest = _md5(open_file(packed))
            if digest != file.md5 and not _repacked(file, packed):
                raise _unofficial(packed, digest, file.md5, file)
            return Copy(file, packed, {})
        places = {member: (folder / member, folder / Path(member).name) for member in file.members}
        found = {member: next((p for p in places[member] if p.is_file()), None) for member in file.members}
    except OSError as error:
        raise InputError(f"cannot read --data-dir '{error.filename or folder}': {error.strerror}") from None
    extracted = {member: place for member, place in found.items() if place is not None}
    for path in extracted.values() if file.content_md5 else ():
        if (digest := _md5(open_file(path))) != file.content_md5:
            raise _unofficial(path, digest, file.content_md5, file)
    return Copy(file, None, extracted) if len(extracted) == len(found) else None


def _repacked(file: OfficialFile, packed: Path) -> bool:
    """Whether only the compression is another, as in the packages of some distributions."""
    try:
        return bool(file.content_md5) and _md5(_unpacked(packed)) == file.content_md5
    except (OSError, EOFError, zlib.error):
        return False


def _unofficial(path: Path, digest: str, wanted: str, file: OfficialFile) -> InputError:
    return InputError(
        f"{path} is not the official file, or damaged: its MD5 is {digest}, not {wanted}; get it from {file.url}"
    )


def _md5(file: Any) -> str:
    """Of a binary file, which is closed."""
    with file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _downloaded(name: str, file: OfficialFile, files: Sequence[OfficialFile]) -> Path:
    """The file in the cache, downloaded if it is not there or not whole."""
    import pooch
    import requests

    folder = cache.folder() / "datasets"
    names = ", ".join(other.name for other in files)
    pooch.get_logger().setLevel("WARNING")
    try:
        with Watch(f"downloading {file.name}", in_bytes=True) as watch:
            fetch = pooch.HTTPDownloader(progressbar=watch, chunk_size=1 << 16)
            return Path(pooch.retrieve(file.url, f"md5:{file.md5}", file.name, folder, downloader=fetch))
    except requests.RequestException as error:
        reason = "no answer" if isinstance(error, requests.ConnectionError) else str(error).splitlines()[0]
        raise InputError(
            f"'{name}' is not in the cache and {file.url} cannot be reached ({reason}); connect this machine to the "
            f"network, or put {names} into a folder and name it with --data-dir"
        ) from None
    except ValueError:  # pooch's word for another checksum
        raise InputError(
            f"what {file.url} sends has another MD5 than the official {file.md5}; try again, or put a good copy of "
            f"{names} into a folder and name it with --data-dir"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot keep {file.name} in '{folder}': {error.strerror}; choose another folder with APPROXNAS_CACHE"
        ) from None
