"""Image folders and archives: the same pixels from every container, kept arrays, and all that must be refused."""

import io
import os
import pickle
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import datasets
from evaluation.datasets import containers, decode, folders
from evaluation.datasets.containers import plain_name
from spaces.errors import InputError
from tests.image_files import FILES, PACK, as_archive, pixels_of, png, tar

JPEG_ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.tar.xz"
SUFFIXES = (".tar", ".tar.gz", ".tar.xz", ".zip")


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path / "cache"))


def pets() -> dict[str, bytes]:
    return {name: png(pixels_of(name)) for name in sorted(FILES)}


def expected(part: str) -> tuple[np.ndarray, list[int]]:
    """Sorted by class, then name, as the classes are numbered."""
    names = sorted(name for name in FILES if name.startswith(part))
    count = len(names) // 3
    return np.stack([pixels_of(name).transpose(2, 0, 1) for name in names]), [0] * count + [1] * count + [2] * count


def as_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def assert_pets(dataset: datasets.Dataset) -> None:
    assert dataset.classes == ("cat", "dog", "eel")
    for part, data in (("train", dataset.train), ("test", dataset.test())):
        images, labels = expected(part)
        assert data.images.dtype == np.uint8 and np.array_equal(data.images, images)
        assert data.labels.dtype == np.int64 and data.labels.tolist() == labels


# -- containers --------------------------------------------------------------------------------------------------------


def test_a_folder_is_read(tmp_path):
    dataset = datasets.load(str(as_folder(tmp_path / "pets", pets())))
    assert_pets(dataset)
    assert dataset.name == "pets"
    assert dataset.origin == "image folder 'pets', training images from 9 PNG files"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("top", ["", "./", "pets-1.0/"])
def test_an_archive_is_read_where_it_lies(suffix, top, tmp_path):
    path = as_archive(tmp_path / "data" / f"pets{suffix}", {top + name: content for name, content in pets().items()})
    dataset = datasets.load(str(path))
    assert_pets(dataset)
    assert dataset.name == "pets" and dataset.origin.startswith(f"archive 'pets{suffix}'")
    assert list(path.parent.iterdir()) == [path], "something was unpacked"


def test_what_file_managers_leave_is_ignored(tmp_path):
    clutter = dict.fromkeys(
        ("train/cat/.DS_Store", "train/cat/._0.png", "train/.git/0.png", "test/cat/Thumbs.db"), b"x"
    )
    assert_pets(datasets.load(str(as_folder(tmp_path / "pets", pets() | clutter))))
    clutter |= {"__MACOSX/train/cat/._0.png": b"x", ".hidden/0.png": b"x"}
    assert_pets(datasets.load(str(as_archive(tmp_path / "pets.zip", pets() | clutter))))
    assert_pets(datasets.load(str(as_archive(tmp_path / "pets.tar", pets() | clutter))))


def test_a_zip_with_backslashes_is_read(tmp_path):
    files = {name.replace("/", "\\"): content for name, content in pets().items()}
    assert_pets(datasets.load(str(as_archive(tmp_path / "pets.zip", files))))


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a.tar.xz", "a"), ("a.b.tgz", "a.b"), ("A.ZIP", "A"), ("a.tar", "a"), ("a.txt", "a.txt"), ("/", "data")],
)
def test_the_name_of_a_data_set(name, plain):
    assert plain_name(Path(name)) == plain


def content_end(files: dict[str, bytes]) -> int:
    """Where the end marker of the tar begins: after a header block and padded content of each file."""
    return sum(512 + -(-len(content) // 512) * 512 for content in files.values())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("symlink", "9.png' is a link or special file"),
        ("hard link", "9.png' is a link or special file"),
        ("pipe", "9.png' is a link or special file"),
        ("huge", "unpacks to far more"),
        ("huge header", "unpacks to far more"),
        ("way out", r"unsafe path 'train/../../cat/9.png'"),
        ("absolute", "unsafe path '/train/cat/9.png'"),
    ],
)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_a_harmful_tar_is_refused(kind, reason, suffix, tmp_path):
    entry = tarfile.TarInfo("train/cat/9.png")
    if kind in ("symlink", "hard link", "pipe"):
        entry.type = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}[kind]
        entry.linkname = "train/cat/0.png"
    if kind in ("huge", "huge header"):
        entry.size, entry.type = 1 << 32, tarfile.REGTYPE if kind == "huge" else tarfile.XHDTYPE
    entry.name = {"way out": "train/../../cat/9.png", "absolute": "/train/cat/9.png"}.get(kind, entry.name)
    whole = tar(pets())
    end = content_end(pets())
    assert whole[end:] == bytes(len(whole) - end)
    path = tmp_path / f"pets{suffix}"
    path.write_bytes(PACK[suffix](whole[:end] + entry.tobuf() + whole[end:]))
    with pytest.raises(InputError, match=reason):
        datasets.load(str(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archives_that_unpack_to_more_than_is_allowed_are_refused(suffix, tmp_path, monkeypatch):
    bomb = as_archive(tmp_path / f"pets{suffix}", pets() | {"zeros": bytes(200_000)})
    assert_pets(datasets.load(str(bomb)))
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(containers, "LARGEST_FILE", 199_999)
    with pytest.raises(InputError, match="unpacks to far more"):
        datasets.load(str(bomb))
    monkeypatch.setattr(containers, "LARGEST_FILE", 1 << 20)
    monkeypatch.setattr(containers, "ALWAYS_ALLOWED", 100_000)
    monkeypatch.setattr(containers, "LARGEST_RATIO", 0)
    with pytest.raises(InputError, match="unpacks to far more"):
        datasets.load(str(bomb))
    monkeypatch.setattr(containers, "ALWAYS_ALLOWED", 1 << 20)
    monkeypatch.setattr(containers, "MOST_FILES", 10)
    monkeypatch.setattr(containers, "BYTES_PER_FILE", 1 << 30)
    with pytest.raises(InputError, match="unpacks to far more"):
        datasets.load(str(bomb))


def test_an_encrypted_zip_and_links_in_it_are_refused(tmp_path):
    path = as_archive(tmp_path / "pets.zip", pets())
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\1\2")
    content[central + 8] |= 1  # the flag of encryption
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        datasets.load(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("train/cat/0.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="0.png' is a link"):
        datasets.load(str(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_archive_is_refused_wherever_it_ends(suffix, tmp_path):
    path = as_archive(tmp_path / f"pets{suffix}", pets())
    content = path.read_bytes()
    end = content_end(pets()) if suffix == ".tar" else len(content) - 1  # the rest of a tar is padding
    for cut in {*(cut for cut in (1, 512, 1024, 1536) if cut < end), end, *(end * part // 9 for part in range(9))}:
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match="pets") as refused:
            datasets.load(str(path))
        assert "truncated" in str(refused.value), cut


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_is_noticed_or_without_effect(suffix, tmp_path):
    path = as_archive(tmp_path / f"pets{suffix}", pets())
    content, rng, noticed = path.read_bytes(), random.Random(0), 0
    # The directory at the end of a zip has no checksum: a flip there may rename a file.
    checked = content.index(b"PK\1\2") if suffix == ".zip" else len(content)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(checked)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        try:
            assert_pets(datasets.load(str(path)))
        except InputError as refused:
            noticed += 1
            assert "pets" in str(refused) and len(str(refused).splitlines()) == 1
    assert noticed >= 20


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.zip", "pets.tar", "pets.tar.xz"])
def test_a_file_of_another_kind_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"this is not an archive of any kind\n" * 100)
    with pytest.raises(InputError, match="cannot be read as an archive"):
        datasets.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("pets.rar", "neither a folder nor an archive"), ("a/b", "does not exist"), ("pets.tar", "does not exist")],
)
def test_a_path_that_leads_nowhere_is_refused(name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pets.rar").write_bytes(b"")
    with pytest.raises(InputError, match=reason):
        datasets.load(name)


def without(prefix: str) -> dict[str, bytes]:
    return {name: content for name, content in pets().items() if not name.startswith(prefix)}


@pytest.mark.parametrize("suffix", ["", ".tar", ".zip"])
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (without("test"), "has no folder 'test'"),
        (without("train"), "has no folder 'train'"),
        ({}, "has no folder 'train'"),
        (without("test/dog"), "test lacks the class 'dog'"),
        (without("train/dog"), "classes that train lacks: dog"),
        ({n: c for n, c in pets().items() if "cat" in n}, "train has 1 class folders; at least two"),
        (without("train/cat") | {"train/cat/readme.txt": b""}, "train/cat holds 1 files that are no images"),
        (without("train/cat") | {"train/cat/deeper/0.png": b""}, "train/cat/deeper is a folder inside a class"),
        (pets() | {"train/cat/0.png": b"not an image"}, "train/cat/0.png: its content is not an image"),
        (pets() | {"train/cat/0.png": pets()["train/cat/0.png"][:60]}, "cannot read the image .*train/cat/0.png"),
        (pets() | {"train/cat/0.png": b""}, "train/cat/0.png: its content is not an image"),
        (pets() | {"train/eel/1.png": png(pixels_of("", (5, 3)))}, "eel/1.png is 3×5 pixels where others are 4×5.*--image"),
        (pets() | {"train/cat/0.png": png(np.full((5, 4), 40_000, np.uint16))}, "more than 8 bits"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_refused(suffix, files, reason, tmp_path):
    path = tmp_path / f"pets{suffix}"
    path.mkdir() if not suffix else None
    as_archive(path, files) if suffix else as_folder(path, files)
    if suffix == ".zip" and not files:
        reason = "has no folder 'train'"
    with pytest.raises(InputError, match=reason):
        datasets.load(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_refused(tmp_path):
    path = as_folder(tmp_path / "pets", pets())
    (path / "train" / "cat" / "0.png").chmod(0)
    with pytest.raises(InputError, match="cannot read .*0.png': Permission denied"):
        datasets.load(str(path))


# -- pixels ------------------------------------------------------------------------------------------------------------

GREY = np.arange(0, 240, 12, dtype=np.uint8).reshape(5, 4)


def test_grey_files_give_one_channel(tmp_path):
    files = {name: png(GREY) for name in FILES}
    files["train/eel/2.png"] = png(np.where(GREY > 100, 255, 0).astype(np.uint8), "1")
    files["test/cat/0.png"] = png(pixels_of("x"))  # a coloured one among the test images becomes grey
    dataset = datasets.load(str(as_folder(tmp_path / "pets", files)))
    assert dataset.train.images.shape == (9, 1, 5, 4) and dataset.test().images.shape == (6, 1, 5, 4)
    assert np.array_equal(dataset.train.images[0, 0], GREY)
    assert np.array_equal(dataset.train.images[8, 0], np.where(GREY > 100, 255, 0))
    red, green, blue = pixels_of("x").astype(float).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601-2
    assert np.abs(dataset.test().images[0, 0] - luma).max() <= 1


@pytest.mark.parametrize("coloured", [0, 4, 8])
def test_grey_files_among_coloured_ones_get_three_equal_channels(coloured, tmp_path):
    files = {name: png(GREY) for name in FILES}
    files[f"train/{('cat', 'dog', 'eel')[coloured // 3]}/{coloured % 3}.png"] = png(pixels_of("x"))
    images = datasets.load(str(as_folder(tmp_path / "pets", files))).train.images
    assert images.shape == (9, 3, 5, 4)
    for at, image in enumerate(images):
        assert np.array_equal(image, pixels_of("x").transpose(2, 0, 1) if at == coloured else np.stack([GREY] * 3))


def test_palettes_and_transparency(tmp_path):
    colours = np.where(GREY[..., None] > 100, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    half = np.dstack([colours, np.full((5, 4), 255, np.uint8)])
    half[0] = (10, 20, 30, 0)  # a row that nobody sees
    files = pets() | {"train/cat/0.png": png(colours, "P"), "train/cat/1.png": png(half), "train/cat/2.png": png(GREY)}
    clear = Image.fromarray(colours).convert("P")
    file = io.BytesIO()
    clear.save(file, "PNG", transparency=bytes([255] * 255 + [0]))
    files["train/dog/0.png"] = file.getvalue()
    images = datasets.load(str(as_folder(tmp_path / "pets", files))).train.images.transpose(0, 2, 3, 1)
    assert np.array_equal(images[0], colours)
    assert np.array_equal(images[1], np.concatenate([np.full((1, 4, 3), 255), colours[1:]]))
    assert np.array_equal(images[2], np.dstack([GREY] * 3))
    assert np.array_equal(images[3], colours)


def test_sizes_are_made_equal_on_request(tmp_path):
    files = {
        name: png(np.full((3 + at % 3, 4 + at % 2, 3), 10 * at, np.uint8)) for at, name in enumerate(sorted(FILES))
    }
    path = str(as_folder(tmp_path / "pets", files))
    dataset = datasets.load(path, image_size=6)
    names = sorted(FILES)
    for part, data in (("train", dataset.train), ("test", dataset.test())):
        values = [10 * names.index(name) for name in names if name.startswith(part)]
        assert data.images.shape == (len(values), 3, 6, 6)
        assert data.images.min((1, 2, 3)).tolist() == data.images.max((1, 2, 3)).tolist() == values
    assert dataset.origin.endswith("resized to 6×6")
    with pytest.raises(InputError, match="--image-size"):
        datasets.load(path)


def test_lossy_files_are_called_so(tmp_path):
    files = pets() | {f"train/cat/{n}.png": png(pixels_of("x"), form="JPEG") for n in range(2)}
    origin = datasets.load(str(as_archive(tmp_path / "pets.tar", files))).origin
    assert "2 JPEG and 7 PNG files (JPEG is lossy" in origin


def test_an_image_of_far_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MOST_PIXELS", 19)
    with pytest.raises(InputError, match=r"train/cat/0.png: 4×5 pixels are too many"):
        datasets.load(str(as_folder(tmp_path / "pets", pets())))


def test_more_images_than_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _: 10)  # 100 bytes
    with pytest.raises(InputError, match=r"9 images of 4×5 pixels need .* --image-size"):
        datasets.load(str(as_folder(tmp_path / "pets", pets())))


# -- kept arrays -------------------------------------------------------------------------------------------------------


def never(*_: object) -> None:
    raise AssertionError("decoded again")


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_images_are_decoded_once(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"pets{suffix}"
    as_archive(path, pets()) if suffix else as_folder(path, pets())
    first = datasets.load(str(path))
    assert_pets(first)
    monkeypatch.setattr(folders, "decode", never)
    again = datasets.load(str(path))
    assert isinstance(again.train.images, np.memmap) and again.train.images.flags.writeable
    assert_pets(again)
    assert (again.origin, again.fingerprint) == (first.origin, first.fingerprint)
    with pytest.raises(AssertionError, match="decoded again"):
        datasets.load(str(path), image_size=8)


@pytest.mark.parametrize("suffix", ["", ".tar", ".zip"])
def test_changed_files_are_decoded_again(suffix, tmp_path):
    path, files = tmp_path / f"pets{suffix}", pets()
    write = as_archive if suffix else as_folder
    assert_pets(datasets.load(str(write(path, files))))
    files["train/cat/0.png"] = png(pixels_of("another"))
    changed = datasets.load(str(write(path, files)))
    assert np.array_equal(changed.train.images[0], pixels_of("another").transpose(2, 0, 1))
    assert np.array_equal(changed.train.images[1:], expected("train")[0][1:])


def truncate(array: Path, about: Path) -> None:  # noqa: ARG001
    array.write_bytes(array.read_bytes()[:-7])


def flip(array: Path, about: Path) -> None:  # noqa: ARG001
    content = bytearray(array.read_bytes())
    content[-3] ^= 4
    array.write_bytes(content)


def foreign(array: Path, about: Path) -> None:  # noqa: ARG001
    np.save(array, np.zeros((9, 3, 5, 4), np.uint8))


def other_shape(array: Path, about: Path) -> None:  # noqa: ARG001
    np.save(array, np.load(array).reshape(9, 3, 4, 5))


def objects(array: Path, about: Path) -> None:  # noqa: ARG001
    array.write_bytes(pickle.dumps({}))


def tear_about(array: Path, about: Path) -> None:  # noqa: ARG001
    about.write_text(about.read_text()[:100])


def empty_about(array: Path, about: Path) -> None:  # noqa: ARG001
    about.write_text("[]")


def lose_about(array: Path, about: Path) -> None:  # noqa: ARG001
    about.unlink()


def lose_array(array: Path, about: Path) -> None:  # noqa: ARG001
    array.unlink()


@pytest.mark.parametrize(
    "harm", [truncate, flip, foreign, other_shape, objects, tear_about, empty_about, lose_about, lose_array]
)
def test_torn_and_foreign_files_are_ignored_and_written_again(harm, tmp_path, monkeypatch):
    path = str(as_archive(tmp_path / "pets.tar", pets()))
    datasets.load(path)
    (array,) = (tmp_path / "cache" / "datasets").glob("pets-train-*.npy")
    harm(array, array.with_suffix(".json"))
    assert_pets(datasets.load(path))
    monkeypatch.setattr(folders, "decode", never)
    assert_pets(datasets.load(path))


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert_pets(datasets.load(str(as_archive(tmp_path / "pets.tar", pets()))))


@pytest.mark.parametrize("suffix", ["", ".tar", ".zip"])
def test_test_images_are_decoded_when_asked_for(suffix, tmp_path):
    path, files = tmp_path / f"pets{suffix}", pets() | {"test/dog/1.png": b"broken"}
    dataset = datasets.load(str((as_archive if suffix else as_folder)(path, files)))
    assert not list((tmp_path / "cache" / "datasets").glob("pets-test-*"))
    with pytest.raises(InputError, match="test/dog/1.png: its content is not an image"):
        dataset.test()


# -- the real archive --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not JPEG_ARCHIVE.exists(), reason=f"{JPEG_ARCHIVE} is not there")
def test_cifar10_as_jpeg_files():
    """A few images of each part; to decode all takes a quarter of a minute."""
    container = containers.open_container(JPEG_ARCHIVE)
    found = folders.find_images(container.listing, JPEG_ARCHIVE)
    assert " ".join(found.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert {part: [len(files) for files in found.files[part]] for part in folders.PARTS} == {
        "train": [5000] * 10,
        "test": [1000] * 10,
    }
    few = [found.files["train"][label][0] for label in (0, 9)]
    content = dict(container.read(few))
    with tarfile.open(JPEG_ARCHIVE) as archive:
        member = next(member for member in archive if member.name == "train/airplane/0000.jpg")  # one of the first
        first = Image.open(archive.extractfile(member))
        assert first.size == (32, 32) and first.tobytes() == Image.open(io.BytesIO(content[few[0]])).tobytes()
    assert few[1] == "train/truck/0000.jpg"
