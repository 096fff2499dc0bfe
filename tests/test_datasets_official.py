"""Official data sets: tiny files in the official formats, read back as arrays made by another way; download and refusal."""

import contextlib
import functools
import gzip
import http.server
import io
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from evaluation import datasets
from evaluation.datasets import formats, official
from spaces.errors import InputError
from tests.official_files import BUILD, members, parts, published, register, write


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("APPROXNAS_CACHE", str(tmp_path / "cache"))


def assert_read(dataset: datasets.Dataset, train: tuple, test: tuple) -> None:
    for data, (images, labels) in ((dataset.train, train), (dataset.test(), test)):
        assert data.images.dtype == np.uint8 and data.labels.dtype == np.int64
        assert np.array_equal(data.images.transpose(0, 2, 3, 1), images)
        assert data.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("name", BUILD)
def test_published_files_are_read_and_kept(name, tmp_path, monkeypatch):
    train, test = parts(name)
    files = published(name, members(name, train, test))
    register(monkeypatch, name, files)
    folder = write(tmp_path / "files", files)
    dataset = datasets.load(name, data_dir=str(folder))
    assert_read(dataset, train, test)
    assert dataset.name == name and "MD5 checked" in dataset.origin
    assert len(dataset.classes) == (100 if name == "cifar100" else 10)
    ends = {"cifar10": ("airplane", "truck"), "cifar100": ("fine 0", "fine 99"), "svhn": ("0", "9")}
    assert (dataset.classes[0], dataset.classes[-1]) == ends.get(name, ("T-shirt/top", "Ankle boot"))
    again = datasets.load(name, data_dir=str(folder))
    assert isinstance(again.train.images, np.memmap)
    assert_read(again, train, test)
    assert (again.fingerprint, again.classes) == (dataset.fingerprint, dataset.classes)


def test_the_real_counts_and_sizes():
    sizes = {
        name: {part: spec.parts[part].members for part in official.PARTS} for name, spec in official.OFFICIAL.items()
    }
    assert sizes["cifar10"]["train"]["cifar-10-batches-bin/data_batch_5.bin"] == 30_730_000  # as the page says
    assert len(sizes["cifar10"]["train"]) == 5 and list(sizes["cifar10"]["test"].values()) == [30_730_000]
    assert sizes["cifar100"]["train"] == {"cifar-100-binary/train.bin": 153_700_000}
    assert sizes["fashion-mnist"]["test"] == {"t10k-images-idx3-ubyte": 7_840_016, "t10k-labels-idx1-ubyte": 10_008}


@pytest.mark.parametrize(("name", "flat"), [("cifar10", False), ("cifar10", True), ("cifar100", False)])
def test_extracted_folders_are_read(name, flat, tmp_path, monkeypatch):
    train, test = parts(name)
    files = members(name, train, test)
    if flat:  # the inner folder itself is given
        files = {Path(member).name: content for member, content in files.items()}
    register(monkeypatch, name, {})
    dataset = datasets.load(name, data_dir=str(write(tmp_path / "files", files)))
    assert_read(dataset, train, test)
    assert "no checksum" in dataset.origin and "MD5" not in dataset.origin


def test_extracted_and_repacked_idx_files_are_known_by_their_content(tmp_path, monkeypatch):
    train, test = parts("fashion-mnist")
    files = members("fashion-mnist", train, test)
    packed = published("fashion-mnist", files)
    register(monkeypatch, "fashion-mnist", packed)
    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    mixed = {images: files[images], f"{labels}.gz": gzip.compress(files[labels], compresslevel=1, mtime=1)}
    assert mixed[f"{labels}.gz"] != packed[f"{labels}.gz"]
    mixed |= {name: packed[name] for name in packed if name.startswith("t10k")}
    folder = write(tmp_path / "files", mixed)
    dataset = datasets.load("fashion-mnist", data_dir=str(folder))
    assert_read(dataset, train, test)
    assert "MD5 checked" in dataset.origin
    for name, content in (
        (f"{labels}.gz", gzip.compress(files[labels][:-1] + b"\x01")),
        (images, bytes(len(files[images]))),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} is not the official file, or damaged"):
            datasets.load("fashion-mnist", data_dir=str(folder))


def test_the_test_images_are_read_when_asked_for(tmp_path, monkeypatch):
    train, (images, labels) = parts("cifar10")
    labels[3] = 77
    files = published("cifar10", members("cifar10", train, (images, labels)))
    register(monkeypatch, "cifar10", files)
    dataset = datasets.load("cifar10", data_dir=str(write(tmp_path / "files", files)))
    with pytest.raises(InputError, match="label 77 where 10 classes are due"):
        dataset.test()


# -- download ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def site(folder: Path, monkeypatch):
    """A web site of the folder's files on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)), bind_and_activate=True
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_files_are_downloaded_once(tmp_path, monkeypatch):
    train, test = parts("fashion-mnist")
    files = published("fashion-mnist", members("fashion-mnist", train, test))
    with site(write(tmp_path / "site", files), monkeypatch) as address:
        register(monkeypatch, "fashion-mnist", files, address)
        assert_read(datasets.load("fashion-mnist"), train, test)
    kept = tmp_path / "cache" / "datasets"
    assert {name: (kept / name).read_bytes() for name in files} == files
    for decoded in kept.glob("*.np*"):
        decoded.unlink()
    assert_read(datasets.load("fashion-mnist"), train, test)  # the site is gone by now


def test_a_damaged_copy_in_the_cache_is_downloaded_anew(tmp_path, monkeypatch):
    train, test = parts("svhn")
    files = published("svhn", members("svhn", train, test))
    write(tmp_path / "cache" / "datasets", {"train_32x32.mat": files["train_32x32.mat"][:-5]})
    with site(write(tmp_path / "site", files), monkeypatch) as address:
        register(monkeypatch, "svhn", files, address)
        assert_read(datasets.load("svhn"), train, test)


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch):
    files = published("cifar10", members("cifar10", *parts("cifar10")))
    ((name, content),) = files.items()
    with site(write(tmp_path / "site", {name: content + b"\0"}), monkeypatch) as address:
        register(monkeypatch, "cifar10", files, address)
        with pytest.raises(InputError, match=f"another MD5 than the official .*{name}.*--data-dir"):
            datasets.load("cifar10")
    assert not list((tmp_path / "cache").rglob("*cifar*")), "what was refused was kept"


@pytest.mark.parametrize("missing", ["file", "site"])
def test_without_a_connection_both_ways_are_said(missing, tmp_path, monkeypatch):
    with site(write(tmp_path / "site", {"other": b""}), monkeypatch) as address:
        register(monkeypatch, "svhn", {}, address)
        if missing == "file":
            with pytest.raises(InputError, match="404"):
                datasets.load("svhn")
    if missing == "site":
        with pytest.raises(InputError) as refused:
            datasets.load("svhn")
        text = str(refused.value)
        for part in ("network", "--data-dir", "train_32x32.mat, test_32x32.mat"):
            assert part in text
        assert len(text.splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    files = published("svhn", members("svhn", *parts("svhn")))
    with site(write(tmp_path / "site", files), monkeypatch) as address:
        register(monkeypatch, "svhn", files, address)
        with pytest.raises(InputError, match="APPROXNAS_CACHE"):
            datasets.load("svhn")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILD)
def test_a_truncated_file_in_the_folder_is_refused(name, tmp_path, monkeypatch):
    files = published(name, members(name, *parts(name)))
    register(monkeypatch, name, files)
    last = list(files)[-1]  # a file of test images, where there are several: refused now, not at the end of the run
    folder = write(tmp_path / "files", files | {last: files[last][:-10]})
    with pytest.raises(
        InputError, match=f"{last} is not the official file, or damaged: its MD5 is [0-9a-f]{{32}}, not"
    ):
        datasets.load(name, data_dir=str(folder))


def test_an_extracted_file_of_test_images_that_is_short_is_refused_at_once(tmp_path, monkeypatch):
    files = members("cifar100", *parts("cifar100"))
    register(monkeypatch, "cifar100", {})
    member = "cifar-100-binary/test.bin"
    folder = write(tmp_path / "files", files | {member: files[member][:-1]})
    with pytest.raises(InputError, match="test.bin has 18,443 bytes where 18,444 are due"):
        datasets.load("cifar100", data_dir=str(folder))


class Trap:
    """Unpickling it raises."""

    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def test_a_folder_without_the_files_is_refused_and_pickles_stay_closed(tmp_path):
    folder = write(tmp_path / "files", {"cifar-10-batches-py/data_batch_1": pickle.dumps(Trap())})
    with pytest.raises(InputError, match=r"lacks cifar-10-binary.tar.gz.*cifar-10-batches-py is the pickled Python"):
        datasets.load("cifar10", data_dir=str(folder))
    with pytest.raises(InputError, match="lacks train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz"):
        datasets.load("fashion-mnist", data_dir=str(folder))
    for place in (tmp_path / "nowhere", folder / "cifar-10-batches-py" / "data_batch_1"):
        with pytest.raises(InputError, match="is not a folder"):
            datasets.load("cifar10", data_dir=str(place))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_read_permission_is_refused(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir(mode=0)
    with pytest.raises(InputError, match="cannot read --data-dir"):
        datasets.load("cifar10", data_dir=str(folder))


def test_flags_without_a_use_are_refused(tmp_path):
    for name in ("digits", str(tmp_path)):
        with pytest.raises(InputError, match="--data-dir is for cifar10"):
            datasets.load(name, data_dir=str(tmp_path))
    with pytest.raises(InputError, match="--image-size is for image folders"):
        datasets.load("cifar10", image_size=16)


RECORD = bytes([3]) + bytes(3072)
MAT = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [10]], np.uint8)}


def saved(**changes) -> bytes:
    file = io.BytesIO()
    savemat(file, {**MAT, **changes})
    return file.getvalue()


@pytest.mark.parametrize(
    ("parse", "reason"),
    [
        (lambda: formats.cifar(RECORD, 2, 1, 10), "3,073 bytes where 2 records of 3,073"),
        (lambda: formats.cifar(RECORD + b"\0", 1, 1, 10), "3,074 bytes"),
        (lambda: formats.cifar(RECORD, 1, 1, 3), "label 3 where 3 classes"),
        (lambda: formats.idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5]), (2,)), "9 bytes where 10 are due"),
        (lambda: formats.idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6, 7]), (2,)), "11 bytes where 10 are due"),
        (lambda: formats.idx(bytes([0, 0, 9, 1, 0, 0, 0, 2, 5, 6]), (2,)), "IDX"),
        (lambda: formats.idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]), (2,)), "IDX"),
        (lambda: formats.idx(b"", (2,)), "IDX"),
        (lambda: formats.svhn(b"not MATLAB's", 2), "no MATLAB file"),
        (lambda: formats.svhn(saved(y=np.array([[1], [11]])), 2), "between 1 and 10"),
        (lambda: formats.svhn(saved(y=np.array([[1], [0]])), 2), "between 1 and 10"),
        (lambda: formats.svhn(saved(), 3), "are due"),
        (lambda: formats.svhn(saved(X=np.zeros((32, 32, 3, 2))), 2), "float64"),
    ],
)
def test_content_in_another_form_is_refused(parse, reason):
    with pytest.raises(ValueError, match=reason):
        parse()
