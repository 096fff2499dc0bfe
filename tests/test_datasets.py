"""Data sets in general: fingerprints, splits, the training limit, and images on the device."""

import dataclasses
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import datasets, run
from evaluation.cli.plan import plan_runs
from evaluation.datasets import Dataset, ImageSet, fashion14
from evaluation.datasets.fashion14 import build
from evaluation.datasets.images import limited
from evaluation.runs import state
from evaluation.runs.folder import RunFolder, read_record
from evaluation.training.data import DeviceImages, channel_statistics
from evaluation.training.tasks.task import Augmentation
from spaces.errors import InputError
from tests import tiny
from tests.image_files import FILES, as_archive, png
from tests.running import SMALL_RANDOM

CPU = torch.device("cpu")
FASHION = Path(__file__).resolve().parents[2] / "shared" / "data" / "fashion-mnist"


def dataset(sizes: list[int]) -> Dataset:
    """A data set whose n-th training image is filled with n; classes of these sizes, mixed."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 4), np.uint8)
    test = ImageSet(images[:5], labels[:5])
    return Dataset("made", "made here", tuple("abcdefgh"[: len(sizes)]), ImageSet(images, labels), lambda: test)


# -- inside the package ------------------------------------------------------------------------------------------------


def test_fashion14_is_balanced_and_unpacks_test_images_when_asked_for(monkeypatch):
    small = datasets.load("fashion14")
    test = small.test()
    for part in (small.train, test):
        assert part.images.shape == (10_000, 1, 14, 14) and part.images.dtype == np.uint8
        assert np.bincount(part.labels).tolist() == [1000] * 10
    assert not np.array_equal(small.train.images, test.images) and len(small.classes) == 10
    monkeypatch.setattr(fashion14, "unpacked", lambda part: small.train if part == "train" else pytest.fail("read"))
    assert datasets.load("fashion14", train_limit=100).fingerprint != small.fingerprint


def test_every_digit_is_a_test_image_in_one_fold():
    whole, tested = datasets.load("digits"), []
    for number in range(1, 6):
        fold = datasets.load(f"digits-fold{number}")
        assert fold.name == f"digits-fold{number}" and f"fold {number} of 5" in fold.origin
        assert len(fold.train.labels) + len(fold.test().labels) == 1797
        assert np.ptp(np.bincount(fold.test().labels)) <= 3  # stratified
        tested.append(fold.test().images)
        assert fold.fingerprint == datasets.load(f"digits-fold{number}").fingerprint != whole.fingerprint
    everything = np.concatenate([whole.train.images, whole.test().images])
    ordered = [
        np.unique(images.reshape(len(images), -1), axis=0, return_counts=True)
        for images in (np.concatenate(tested), everything)
    ]
    assert all(np.array_equal(*pair) for pair in zip(*ordered))
    with pytest.raises(InputError, match="did you mean digits-fold"):
        datasets.load("digits-fold6")


def test_halving_takes_means_of_four_pixels():
    images = np.zeros((1, 1, 28, 28), np.uint8)
    images[0, 0, :4, :4] = [[0, 1, 255, 255], [0, 1, 255, 254], [7, 9, 0, 0], [8, 9, 0, 1]]
    made = fashion14.halved(ImageSet(images, np.zeros(1, int))).images
    assert made.shape == (1, 1, 14, 14) and made[0, 0, :2, :2].tolist() == [[1, 255], [8, 0]]


@pytest.mark.skipif(not FASHION.is_dir(), reason="shared/data is not mounted here")
def test_fashion14_is_made_of_the_official_images():
    content = {part: lzma.decompress(packed) for part, packed in build.built(FASHION).items()}
    for part, made in content.items():
        assert made == lzma.decompress(Path(fashion14.__file__).with_name(f"{part}.xz").read_bytes())
    official = gzip.decompress((FASHION / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    first = np.frombuffer(official, np.uint8)[: 28 * 28].reshape(28, 28)
    means = [
        [round(float(first[y : y + 2, x : x + 2].mean()) + 1e-6) for x in range(0, 28, 2)] for y in range(0, 28, 2)
    ]
    assert list(content["test"][10_000 : 10_000 + 14 * 14]) == np.ravel(means).tolist()


# -- the training limit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "count", "kept"),
    [
        ([10, 10, 10], 12, [4, 4, 4]),
        ([12, 6, 7], 10, [5, 2, 3]),  # 4.8, 2.4 and 2.8
        ([10, 10, 10], 11, [4, 4, 3]),  # 3.67 each: the first classes get what is over
        ([20, 80], 10, [2, 8]),
        ([10, 10], 20, [10, 10]),
    ],
)
def test_a_limit_keeps_the_share_of_each_class(sizes, count, kept):
    whole = dataset(sizes)
    part = limited(whole, count)
    assert np.bincount(part.train.labels).tolist() == kept
    chosen = part.train.images[:, 0, 0, 0]
    assert chosen.tolist() == sorted(set(chosen.tolist()))  # each once, in their old order
    assert part.train.labels.tolist() == whole.train.labels[chosen].tolist()
    assert part.test() is whole.test()
    assert part.origin == f"made here; a fixed stratified subset of {count} of the {sum(sizes)} training images"
    assert (part.fingerprint == whole.fingerprint) == (count == sum(sizes))


def test_a_larger_limit_keeps_what_a_smaller_one_does():
    whole = dataset([30, 30, 30])
    kept = [set(limited(whole, count).train.images[:, 0, 0, 0].tolist()) for count in (9, 30, 60)]
    assert kept[0] < kept[1] < kept[2]
    labels = whole.train.labels  # drawn, not the first ones of each class: files are often sorted
    assert kept[1] != {int(at) for label in range(3) for at in np.flatnonzero(labels == label)[:10]}
    assert sorted(kept[0]) == limited(whole, 9).train.images[:, 0, 0, 0].tolist()  # the same every time


@pytest.mark.parametrize(
    ("sizes", "count", "reason"),
    [
        ([10, 10, 10], 5, "5 is too small: 3 classes need at least 6"),
        ([10, 10, 10], 31, "'made' has 30 training images"),
        ([50, 2, 2], 10, "leaves class 'c' fewer than two"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(sizes, count, reason):
    with pytest.raises(InputError, match=reason):
        limited(dataset(sizes), count)


def test_the_digits_take_a_limit():
    part = datasets.load("digits", train_limit=100)
    assert len(part.train.labels) == 100 and len(part.test().labels) == 360
    assert set(np.bincount(part.train.labels)) <= {9, 10, 11}


def test_an_archive_with_a_limit_runs_and_the_record_says_so(tmp_path, capsys):
    numbers = [name.replace("/0.", f"/{n}.") for name in FILES for n in range(8) if "/0." in name]
    more = {name: png(np.full((8, 8), at, np.uint8)) for at, name in enumerate(numbers)}
    path = as_archive(tmp_path / "pets.tar.gz", more)
    flags = [*SMALL_RANDOM, "--random.samples", "2", "--baselines", "none", "--out", str(tmp_path / "runs")]
    assert run.main([*flags, "--dataset", str(path), "--train-limit", "12"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "random-pets-quick-custom-s0-1"
    record = read_record(folder / "record.json")
    assert record.train_limit == 12 and "a fixed stratified subset of 12 of the 24 training" in record.dataset_origin
    assert record.dataset_fingerprint == datasets.load(str(path), train_limit=12).fingerprint
    config = RunFolder(folder).config()
    assert (config.train_limit, config.dataset) == (12, str(path))
    assert "pets (12 training images)" in " ".join(capsys.readouterr().out.split())
    (folder / "record.json").unlink()
    assert run.main(["--resume", str(folder)]) == 0
    assert read_record(folder / "record.json").train_limit == 12


def test_a_folder_is_remembered_by_its_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    Path("cifar10").mkdir()  # a data set's name goes before a folder's
    plans = [
        plan_runs(run.parse(["--method", "random", *flags]), "command")[0][0]
        for flags in (["--dataset", "./files"], ["--dataset", "cifar10", "--data-dir", "files", "--train-limit", "9"])
    ]
    assert [(plan.dataset, plan.data_dir, plan.train_limit) for plan in plans] == [
        (str(tmp_path / "files"), "", 0),
        ("cifar10", str(tmp_path / "files"), 9),
    ]


def test_checkpoints_from_before_a_setting_existed_are_resumed(tmp_path):
    config, data = tiny.run_config(), tiny.dataset()
    old = {name: value for name, value in config.to_json().items() if name not in ("train_limit", "data_dir")}
    kept = json.loads(json.dumps({"config": old, "data": data.fingerprint}))
    state._require_same(kept, config, data, RunFolder(tmp_path))
    with pytest.raises(InputError, match=r"changed since the checkpoint \(train_limit\)"):
        state._require_same(kept, dataclasses.replace(config, train_limit=9), data, RunFolder(tmp_path))


# -- on the device -----------------------------------------------------------------------------------------------------


def device_images(data: ImageSet) -> DeviceImages:
    return DeviceImages(data, torch.full((2, 1, 1), 0.25), torch.full((2, 1, 1), 0.5), CPU)


def same(batches, others) -> bool:
    pairs = list(zip(batches, others, strict=True))
    return all(torch.equal(x, y) for pair, other in pairs for x, y in zip(pair, other, strict=True)) and bool(pairs)


def test_parts_of_a_set_share_its_memory_and_give_the_batches_of_a_copy():
    data = dataset([20, 25, 30]).train
    whole = device_images(data)
    for index in datasets.split_index(data.labels, 0.4, seed=0):
        part, copied = whole.part(index), device_images(data.take(index))
        assert len(part) == len(copied) == len(index)
        assert part.images.data_ptr() == whole.images.data_ptr()
        assert same(part.in_order(8), copied.in_order(8))
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        varied = Augmentation(crop_padding=1, flip=True, cutout=2)
        assert same(*(s.shuffled(8, g, varied) for s, g in zip((part, copied), generators)))
    assert len(whole) == 75


def test_every_seed_splits_the_images_its_own_way():
    """Runs of one seed, whatever their method, share a split; that of seed 0 is the protocol's."""
    splits = {
        (method, seed): tiny.problem(method, seed=seed).data.split
        for method in ("random", "evoapproxnas")
        for seed in (0, 1, 2)
    }
    for seed in (0, 1, 2):
        ours, theirs = splits["random", seed], splits["evoapproxnas", seed]
        assert all(np.array_equal(one, other) for one, other in zip(ours, theirs))
        assert np.array_equal(np.sort(np.concatenate(ours)), np.arange(120))
    first, second, third = (splits["random", seed][0].tolist() for seed in (0, 1, 2))
    assert first != second != third != first
    labels = tiny.dataset().train.labels
    assert first == datasets.split_index(labels, tiny.PROTOCOL.validation_share, tiny.PROTOCOL.split_seed)[0].tolist()


def test_split_indices_are_a_stratified_partition():
    labels = dataset([20, 30, 50]).train.labels
    rest, taken = datasets.split_index(labels, 0.4, seed=0)
    assert sorted([*rest, *taken]) == list(range(100)) and np.bincount(labels[taken]).tolist() == [8, 12, 20]
    assert [part.labels.tolist() for part in datasets.split(dataset([20, 30, 50]).train, 0.4, seed=0)] == [
        labels[rest].tolist(),
        labels[taken].tolist(),
    ]


@pytest.mark.parametrize("kind", ["read-only", "mapped", "mapped read-only"])
def test_arrays_that_are_mapped_or_read_only_are_taken(kind, tmp_path):
    data = dataset([20, 30]).train
    np.save(tmp_path / "images.npy", data.images)
    images = {
        "read-only": np.frombuffer(data.images.tobytes(), np.uint8).reshape(data.images.shape),
        "mapped": np.load(tmp_path / "images.npy", mmap_mode="c"),
        "mapped read-only": np.load(tmp_path / "images.npy", mmap_mode="r"),
    }[kind]
    taken = ImageSet(images, data.labels)
    assert same(device_images(taken).in_order(8), device_images(data).in_order(8))
    assert all(torch.equal(one, other) for one, other in zip(channel_statistics(taken), channel_statistics(data)))


def test_channel_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 4, 5)).astype(np.uint8)  # more than two pieces
    mean, std = channel_statistics(ImageSet(images, np.zeros(2500, np.int64)))
    scaled = images / 255
    assert mean.shape == std.shape == (3, 1, 1)
    assert np.allclose(mean.flatten(), scaled.mean((0, 2, 3)), rtol=1e-6)
    assert np.allclose(std.flatten(), scaled.std((0, 2, 3)), rtol=1e-6)
