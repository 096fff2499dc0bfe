"""From a finished run to an export: build, record the graph, write, read back, compare."""

import itertools
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from evaluation import datasets
from evaluation.export import files, make_staging, network, onnx_file, require_new
from evaluation.export.graph import record
from evaluation.runs import checkpoints
from evaluation.runs.folder import RECORD, RunFolder, read_record
from evaluation.runs.stages import Run
from evaluation.training.data import DeviceImages
from spaces.arithmetic import emulate
from spaces.cli.programs import program, version
from spaces.errors import InputError
from spaces.files.reading import parsing

CHECKED = 128  # test images on which what was written is compared with the network
BATCH = 32
CPU = torch.device("cpu")


def export_finalist(run: Path, number: int, to: Path) -> str:
    """Write finalist ``number`` (from 1) of the finished ``run`` into the new folder ``to`` and say what was checked.

    The folder appears once a network that was rebuilt from its files alone has given the same logits, bit for bit.
    Raises InputError for an unfinished run, a finalist that is missing or failed, and a folder that is not empty.
    """
    require_new(to)
    run = run.parent if run.name == RECORD else run
    trained = TrainedFinalist(run, number)
    staging = make_staging(to)
    try:
        lines = [f"{to}: finalist {number} of {run}", *_write(trained, staging)]
        if to.exists():
            to.rmdir()
        staging.chmod(0o777 & ~_umask())
        staging.rename(to.resolve())
    except OSError as error:
        again = f"{program('export')} {run} --finalist {number} --to another_folder"
        raise InputError(f"cannot write to '{to}': {error.strerror}; once more: {again}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return "\n  ".join(lines)


def _umask() -> int:
    """What new files are not allowed; temporary folders are made for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


class TrainedFinalist:
    """A finalist of a finished run on the CPU, and the images to check an export by."""

    def __init__(self, run: Path, number: int) -> None:
        place = RunFolder(run)
        config = place.config()
        if not (run / RECORD).exists():
            raise InputError(f"{run} is not finished; go on with: {program('run')} --resume {run}")
        self.record = read_record(run / RECORD)
        finalists = self.record.finalists
        if not 1 <= number <= len(finalists):
            raise InputError(f"{run} has no finalist {number}; it has {len(finalists)}")
        self.finalist = finalists[number - 1]
        if self.finalist.accuracy.test.get("approximate") is None:
            raise InputError(f"the training of finalist {number} of {run} failed: there is no network to export")
        self.weights = place.weights(number, "approximate")
        if not self.weights.exists():
            raise InputError(f"{self.weights} does not exist; without the trained weights nothing can be exported")
        self.dataset = datasets.load(config.dataset, config.image_size, config.data_dir, config.train_limit)
        if self.dataset.fingerprint != self.record.dataset_fingerprint:
            raise InputError(f"the training images of '{config.dataset}' are not those of {run}")
        emulate.use_engine("auto")
        again = Run(replace(config, device="cpu", engine="auto"), self.dataset, CPU, place.library(config))
        self.space, self.shape = again.problem.space, again.final_shape
        self.architecture = self.space.from_json(self.finalist.architecture)
        self.mean, self.std = again.problem.data.statistics
        test = self.dataset.test()
        if self.record.test_fingerprint not in ("", test.fingerprint):  # older records have none
            raise InputError(f"the test images of '{config.dataset}' are not those of {run}")
        self.images = DeviceImages(test, self.mean, self.std, CPU, again.problem.task)

    def network(self, arithmetic: str) -> nn.Module:
        """The network with the weights that were trained in approximate arithmetic, ready to answer."""
        built = self.space.build(self.architecture, self.shape, arithmetic)
        with parsing(self.weights, "does not hold the weights of this finalist", "; train it again"):
            built.load_state_dict(checkpoints.load(self.weights, CPU))
        return built.to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def logits(self, arithmetic: str) -> Tensor:
        """Of the checked images."""
        built, batches = self.network(arithmetic), self.images.in_order(BATCH)
        return torch.cat([built(images) for images, _ in itertools.islice(batches, CHECKED // BATCH)])

    def pixels(self) -> Tensor:
        """The checked images."""
        return self.images.images[:CHECKED]


def _write(trained: TrainedFinalist, folder: Path) -> list[str]:
    """Write all files and return a line on each check. Raises RuntimeError where one fails, which is a defect."""
    image, _ = next(trained.images.in_order(1))
    graph = record(trained.network("approximate"), image, trained.mean, trained.std)
    files.write(graph, _about(trained), folder)
    rebuilt = network.load(folder)
    pixels, expected = trained.pixels(), trained.logits("approximate")
    got = torch.cat([rebuilt(part) for part in pixels.split(BATCH)])
    if not torch.equal(got, expected):
        raise RuntimeError(f"the re-imported network differs by up to {float((got - expected).abs().max())}")
    lines = [f"{files.JSON}, {files.NPZ}: re-imported, the same logits bit for bit on {len(pixels)} test images"]
    if missing := onnx_file.why_not("onnx"):
        return [*lines, f"no {files.ONNX}: {missing}"]
    onnx_file.write(graph, folder / files.ONNX)
    if missing := onnx_file.why_not("onnxruntime"):
        return [*lines, f"{files.ONNX}: valid, but not run: {missing}"]
    return [*lines, _check_onnx(trained, folder / files.ONNX)]


def _check_onnx(trained: TrainedFinalist, path: Path) -> str:
    """Compare onnxruntime's answers with the network's under exact products.

    Runtimes may round float32 otherwise, which now and then moves a code by one. So classes are compared, not bits.
    """
    expected, task = trained.logits("int8"), trained.images.task
    got = torch.cat([torch.from_numpy(onnx_file.run(path, part.numpy())) for part in trained.pixels().split(BATCH)])
    same = int((task.errors(got, task.answers(expected)) == 0).sum())
    if same < 0.98 * len(expected):
        raise RuntimeError(f"onnxruntime gives another class for {len(expected) - same} of {len(expected)} test images")
    apart = float((got - expected).abs().max())
    return (
        f"{files.ONNX}: onnxruntime gives the same class for {same} of {len(expected)}, logits up to {apart:.1e} apart"
    )


def _about(trained: TrainedFinalist) -> dict:
    """Where the network comes from, for ``network.json``."""
    record, finalist = trained.record, trained.finalist
    return {
        "architecture": finalist.architecture,
        "key": finalist.key,
        "scope": record.scope,
        "classes": list(trained.dataset.classes),
        "trained_on": {
            name: getattr(record, name) for name in ("dataset", "dataset_origin", "dataset_fingerprint", "seed")
        },
        "protocol": asdict(record.protocol),
        "test_accuracy": finalist.accuracy.test["approximate"],
        "int8_onnx": "these weights under exact products; not the exact int8 network of the record, which has its own",
        "version": version(),
    }
