"""Exports: a plain interpreter of the files against torch's network, the re-import, the ONNX file, and bad input."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluation import datasets
from evaluation.export import files, network, onnx_file
from evaluation.export.__main__ import main
from evaluation.export.exporting import export_finalist
from evaluation.export.graph import record
from spaces.arithmetic.layers import ApproxConv2d
from spaces.cells.published import Genotype
from spaces.cells.space import CellSpace
from spaces.errors import InputError
from spaces.grid.architecture import GridArchitecture, GridNode
from spaces.grid.space import GridConfig, GridSpace
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier, exact_products
from spaces.shape import NetworkShape
from tests import tiny
from tests.running import finished_run

CPU = torch.device("cpu")
HALF, CHEAP = catalogue.get("mul8s_1L2H"), catalogue.get(catalogue.names()[-1])


def uneven_multiplier() -> Multiplier:
    """Unsigned, and wrong for zero operands, too."""
    rng = np.random.default_rng(0)
    table = exact_products(signed=False) + rng.integers(-40, 300, (256, 256))
    return Multiplier(name="mul8u_uneven", signed=False, table=table, power_mw=0.3)


# -- networks of every kind --------------------------------------------------------------------------------------------

# Every operation, in cells of odd sizes, whose reductions pad.
GENES = (
    ("sep_conv_3x3", 0), ("dil_conv_5x5", 1), ("max_pool_3x3", 0), ("skip_connect", 1),
    ("avg_pool_3x3", 1), ("dil_conv_3x3", 2), ("skip_connect", 0), ("sep_conv_5x5", 3),
)  # fmt: skip
EVERYTHING = Genotype(normal=GENES, reduce=GENES, source="this test")
IN_CELLS = NetworkShape(channels=4, cells=3, classes=5, input_shape=(3, 7, 6))


def cells(multiplier: Multiplier, scope: str) -> tuple[CellSpace, object]:
    architecture = EVERYTHING.architecture(multiplier.name, scope)
    library = [multiplier]
    if multiplier == HALF:  # two circuits in one network, and nodes of one and three edges
        data = architecture.to_json()
        data["cells"][0]["nodes"][1].pop()
        data["cells"][0]["nodes"][2].append([0, "max_pool_3x3", None])
        data["cells"][0]["nodes"][0][0][2] = CHEAP.name
        architecture, library = type(architecture).from_json(data), [HALF, CHEAP]
    return CellSpace(library, scope=scope), architecture


def grid() -> tuple[GridSpace, GridArchitecture]:
    """A residual block, sums of unequal widths and sizes, a concatenation."""
    genes = (
        ("conv_3x3_16", HALF, 0, 0), ("res_5x5_32", CHEAP, 1, 1), ("avg_pool", HALF, 2, 2), ("sum", HALF, 1, 3),
        ("max_pool", HALF, 4, 4), ("concat", HALF, 5, 2),
    )  # fmt: skip
    nodes = tuple(GridNode(function, multiplier.name, (a, b)) for function, multiplier, a, b in genes)
    return GridSpace([HALF, CHEAP], GridConfig(1, 6, 6)), GridArchitecture(1, 6, 6, nodes, 6, HALF.name)


NETWORKS = {
    "cells, all": lambda: (*cells(HALF, "all"), IN_CELLS),
    "cells, separable": lambda: (*cells(CHEAP, "separable"), IN_CELLS),
    "cells, unsigned": lambda: (*cells(uneven_multiplier(), "all"), IN_CELLS),
    "grid": lambda: (*grid(), NetworkShape(4, 3, 5, (3, 7, 6))),
}


class Trained:
    """A network that has seen some batches, its normalisation, and images."""

    def __init__(self, kind: str) -> None:
        self.space, self.architecture, self.shape = NETWORKS[kind]()
        generator = torch.Generator().manual_seed(1)
        self.pixels = torch.randint(0, 256, (6, *self.shape.input_shape), generator=generator).to(torch.uint8)
        self.mean = torch.rand(3, 1, 1, generator=generator)
        self.std = torch.rand(3, 1, 1, generator=generator) + 0.2
        self.network = self.space.build(self.architecture, self.shape).to(memory_format=torch.channels_last)
        for part in self.pixels.split(2):
            self.network(self.normalised(part))
        for module in self.network.modules():  # as training would leave them
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        self.network.eval()

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def logits(self, built: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return built(self.normalised(self.pixels))

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        graph = record(self.network, self.normalised(self.pixels[:1]), self.mean, self.std)
        files.write(graph, {}, folder)
        return folder


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request) -> Trained:
    torch.manual_seed(0)
    return Trained(request.param)


# -- the interpreter: numpy, network.json, network.npz and the tables; nothing of ours ---------------------------------


class Interpreter:
    """One image at a time, as the formulas in network.json say. ``values`` holds what every layer gave."""

    def __init__(self, folder: Path) -> None:
        self.content = json.loads((folder / "network.json").read_text())
        self.arrays = np.load(folder / "network.npz", allow_pickle=False)
        self.tables = {
            name: np.load(folder / multiplier["table"], allow_pickle=False).astype(np.int64)
            for name, multiplier in self.content["multipliers"].items()
        }

    def has(self, layer: dict, what: str) -> bool:
        return f"{layer['name']}.{what}" in self.arrays.files

    def get(self, layer: dict, what: str) -> np.ndarray:
        return self.arrays[f"{layer['name']}.{what}"]

    def compute(self, layer: dict, inputs: list[np.ndarray]) -> np.ndarray:
        x = inputs[0]
        match layer["op"]:
            case "normalise":
                return (x.astype(np.float32) / np.float32(255) - self.get(layer, "mean")) / self.get(layer, "std")
            case "conv":
                return self.conv(layer, x, layer["stride"], layer["padding"], layer["dilation"], layer["groups"])
            case "linear":
                return self.conv(layer, x[:, None, None], [1, 1], [0, 0], [1, 1], 1)[:, 0, 0]
            case "batch_norm":
                return self.batch_norm(layer, x)
            case "relu":
                return np.maximum(x, 0)
            case "add":
                return np.sum(inputs, axis=0, dtype=np.float32)
            case "concat":
                return np.concatenate(inputs)
            case "max_pool" | "average_pool":
                return self.pool(layer, x)
            case "global_average_pool":
                return x.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
            case "pad":
                return np.pad(x, ((0, 0), (layer["top"], layer["bottom"]), (layer["left"], layer["right"])))
            case "slice":
                return x[tuple(slice(a, b) for a, b in zip(layer["start"], layer["stop"]))]
            case "flatten":
                return x.reshape(-1)
        raise AssertionError(layer["op"])

    def conv(self, layer, x, stride, padding, dilation, groups) -> np.ndarray:
        if layer["arithmetic"] == "fp32":
            weight = self.get(layer, "weight")
            weight = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim)).astype(np.float64)
            y = windows(x.astype(np.float64), weight, 0, stride, padding, dilation, groups, np.multiply)
            y = y.astype(np.float32)
        else:
            multiplier = self.content["multipliers"][layer["multiplier"]]
            table, z = self.tables[layer["multiplier"]], layer["activation_zero_point"]
            weight = self.get(layer, "weight_codes").astype(np.int64)
            weight = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim))
            step = self.get(layer, "activation_scale")
            codes = np.rint(x / step)
            scale = (step * self.get(layer, "weight_scale"))[:, None, None]
            if multiplier["signed"]:
                codes = np.clip(codes, -127, 127).astype(np.int64)
                product = lambda a, b: table[a + 128, b + 128]  # noqa: E731
            else:
                codes = np.clip(codes, -z, 255 - z).astype(np.int64) + z
                product = lambda a, b: table[a, b + 128] - 128 * a  # noqa: E731
            sums = windows(codes, weight, z, stride, padding, dilation, groups, product)
            y = sums.astype(np.float32) * scale
            if not multiplier["signed"]:
                y -= weight.sum(axis=(1, 2, 3)).astype(np.float32)[:, None, None] * scale * np.float32(z)
        return y + self.get(layer, "bias")[:, None, None] if self.has(layer, "bias") else y

    def batch_norm(self, layer, x) -> np.ndarray:
        names = ("mean", "variance", *(("gamma", "beta") if self.has(layer, "gamma") else ()))
        parts = [self.get(layer, name).astype(np.float64)[:, None, None] for name in names]
        y = (x - parts[0]) / np.sqrt(parts[1] + layer["epsilon"])
        return (y * parts[2] + parts[3] if len(parts) == 4 else y).astype(np.float32)

    def pool(self, layer, x) -> np.ndarray:
        most = layer["op"] == "max_pool"
        (kh, kw), (sh, sw), (ph, pw) = layer["kernel_size"], layer["stride"], layer["padding"]
        padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw)), constant_values=np.nan)
        y = np.empty(layer["output_shape"], np.float32)
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                window = padded[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
                y[:, i, j] = (np.nanmax if most else np.nanmean)(window, axis=(1, 2))
        return y

    def values(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        values = {"image": pixels}
        for layer in self.content["layers"]:
            y = self.compute(layer, [values[name] for name in layer["inputs"]])
            assert list(y.shape) == layer["output_shape"], layer["name"]
            values[layer["name"]] = y
        return values


def windows(x, weight, fill, stride, padding, dilation, groups, product) -> np.ndarray:
    """Σ product(activation, weight) over every window, one output pixel and channel at a time."""
    outputs, inner, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), *((p, p) for p in padding)), constant_values=fill)
    size = [
        (padded.shape[1 + at] - dilation[at] * (kernel - 1) - 1) // stride[at] + 1 for at, kernel in enumerate((kh, kw))
    ]
    sums = np.empty((outputs, *size), weight.dtype)
    for o in range(outputs):
        first = o // (outputs // groups) * inner
        for i in range(size[0]):
            for j in range(size[1]):
                rows = i * stride[0] + dilation[0] * np.arange(kh)
                columns = j * stride[1] + dilation[1] * np.arange(kw)
                sums[o, i, j] = product(padded[first : first + inner][:, rows][:, :, columns], weight[o]).sum()
    return sums


def test_a_plain_interpreter_of_the_files_gives_what_the_network_gives(trained, tmp_path):
    interpreter = Interpreter(trained.write(tmp_path / "x"))
    expected = trained.logits(trained.network).numpy()
    for image in range(2):
        values = interpreter.values(trained.pixels[image].numpy())
        # Float rounding differs in the last bit here and there, which moves a code once in ten thousand times or so.
        np.testing.assert_allclose(values[interpreter.content["output"]], expected[image], rtol=0, atol=2e-4)
    assert np.ptp(expected) > 0.1


def test_every_layer_of_a_multiplier_has_exactly_the_sums_of_its_table(trained, tmp_path):
    """Each fed with what the network fed it, the interpreter's outputs are the network's, bit for bit."""
    interpreter = Interpreter(trained.write(tmp_path / "x"))
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
        for name, module in trained.network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    trained.logits(trained.network)
    for hook in hooks:
        hook.remove()
    through = [layer for layer in interpreter.content["layers"] if layer.get("arithmetic") == "circuit"]
    fp32 = [layer for layer in interpreter.content["layers"] if layer.get("arithmetic") == "fp32"]
    assert len(through) + len(fp32) == len(seen) and len(through) >= 4
    for layer in through:
        x, y = (part[0].numpy() for part in seen[layer["name"]])
        assert np.array_equal(interpreter.compute(layer, [x]), y), layer["name"]
    for layer in fp32:
        x, y = (part[0].numpy() for part in seen[layer["name"]])
        np.testing.assert_allclose(interpreter.compute(layer, [x]), y, atol=1e-5)


def test_the_graph_says_what_hardware_needs_to_know(tmp_path):
    network_ = Trained("cells, all")
    content = Interpreter(network_.write(tmp_path / "x")).content
    keys = {name: multiplier["key"] for name, multiplier in content["multipliers"].items()}
    assert keys == {HALF.name: HALF.key, CHEAP.name: CHEAP.key}
    layers = {layer["name"]: layer for layer in content["layers"]}
    assert content["layers"][0]["op"] == "normalise" and content["output"] == "classifier"
    # The edge of the normal cell that got another circuit: one sep_conv, two depthwise and two pointwise convolutions.
    cheap = [name for name, layer in layers.items() if layer.get("multiplier") == CHEAP.name]
    assert cheap == [f"cells.0.body.operations.0.0.{at}" for at in (0, 1, 4, 5)]
    depthwise = layers["cells.0.body.operations.0.1.0"]  # dil_conv_5x5
    assert depthwise["kernel_size"] == [5, 5] and depthwise["dilation"] == [2, 2] and depthwise["padding"] == [4, 4]
    assert depthwise["groups"] == 4 and depthwise["output_shape"] == [4, 7, 6]
    assert layers["cells.1.body.operations.0.1.0"]["stride"] == [2, 2]


# -- the re-import -----------------------------------------------------------------------------------------------------


def test_the_reimported_network_gives_the_same_bits(trained, tmp_path):
    again = network.load(trained.write(tmp_path / "x"))
    assert torch.equal(again(trained.pixels), trained.logits(trained.network))


def change_code(folder: Path) -> None:
    with np.load(folder / "network.npz") as packed:
        arrays = dict(packed)
    arrays["classifier.weight_codes"] = arrays["classifier.weight_codes"] // 2
    np.savez_compressed(folder / "network.npz", **arrays)


def test_the_reimport_reads_the_files_alone(tmp_path):
    network_ = Trained("cells, all")
    folder = network_.write(tmp_path / "x")
    change_code(folder)
    assert not torch.equal(network.load(folder)(network_.pixels), network_.logits(network_.network))


def lose_array(folder: Path) -> None:
    with np.load(folder / "network.npz") as packed:
        arrays = {name: packed[name] for name in packed.files if name != "stem.0.weight_scale"}
    np.savez_compressed(folder / "network.npz", **arrays)


def cut_arrays(folder: Path) -> None:
    path = folder / "network.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle_arrays(folder: Path) -> None:
    np.savez(folder / "network.npz", **{"stem.0.weight_codes": np.array([Path()], dtype=object)})


def swap_tables(folder: Path) -> None:
    np.save(folder / "multipliers" / f"{HALF.name}.npy", CHEAP.table)


def edit(folder: Path, change) -> None:
    content = json.loads((folder / "network.json").read_text())
    change(content)
    (folder / "network.json").write_text(json.dumps(content))


DAMAGES = {
    "array missing": (lose_array, "lacks stem.0.weight_scale"),
    "archive torn": (cut_arrays, "network.npz is damaged"),
    "pickled array": (pickle_arrays, "network.npz is damaged"),
    "another table": (swap_tables, HALF.name),
    "no tables": (lambda folder: shutil.rmtree(folder / "multipliers"), "multipliers"),
    "no archive": (lambda folder: (folder / "network.npz").unlink(), "network.npz' does not exist"),
    "no graph": (lambda folder: (folder / "network.json").unlink(), "network.json' does not exist"),
    "torn graph": (lambda folder: (folder / "network.json").write_text("{"), "network.json is damaged"),
    "not a graph": (lambda folder: (folder / "network.json").write_text("[]"), "not an exported network"),
    "newer": (lambda folder: edit(folder, lambda c: c.update(format=2)), "newer"),
    "layer without inputs": (lambda folder: edit(folder, lambda c: c["layers"][3].pop("inputs")), "damaged"),
    "layer without stride": (
        lambda folder: edit(folder, lambda c: c["layers"][1].pop("stride")),
        "stem.0.stride is missing",
    ),
    "unknown kind": (lambda folder: edit(folder, lambda c: c["layers"][3].update(op="gelu")), "'gelu'"),
    "unknown input": (lambda folder: edit(folder, lambda c: c["layers"][3].update(inputs=["?"])), "not there before"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return Trained("cells, all").write(tmp_path_factory.mktemp("exported") / "x")


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_export_is_refused(case, exported, tmp_path):
    harm, expected = DAMAGES[case]
    folder = Path(shutil.copytree(exported, tmp_path / "x"))
    harm(folder)
    with pytest.raises(InputError, match=expected):
        network.load(folder)


# -- the ONNX file -----------------------------------------------------------------------------------------------------


def test_onnxruntime_gives_what_torch_gives_under_exact_products(trained, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    graph, _ = files.read(trained.write(tmp_path / "x"))
    onnx_file.write(graph, tmp_path / "int8.onnx")
    exact = trained.space.build(trained.architecture, trained.shape, "int8").to(memory_format=torch.channels_last)
    exact.load_state_dict(trained.network.state_dict())
    expected = trained.logits(exact.eval()).numpy()
    np.testing.assert_allclose(onnx_file.run(tmp_path / "int8.onnx", trained.pixels.numpy()), expected, atol=5e-4)
    approximate = trained.logits(trained.network).numpy()
    assert np.abs(approximate - expected).max() > 5e-3  # the circuits do make a difference


def test_the_onnx_file_computes_on_bytes(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    graph, _ = files.read(Trained("cells, all").write(tmp_path / "x"))
    onnx_file.write(graph, tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    multiplying = [layer for layer in graph.layers if layer["op"] in ("conv", "linear")]
    assert kinds.count("ConvInteger") == len(multiplying) and not {"Conv", "Gemm", "MatMul"} & {*kinds}
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert np.array_equal(weights["stem.0:weight"], graph.arrays["stem.0.weight_codes"])
    assert weights["stem.0:weight"].dtype == np.int8


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder, _ = finished_run(tmp_path_factory.mktemp("runs"), tiny.run_config("random", baselines="none", seed=3))
    return folder.path


@pytest.fixture(autouse=True)
def blobs(monkeypatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: tiny.dataset())


def test_a_finalist_is_exported_checked_and_gives_the_recorded_accuracy(run_folder, tmp_path):
    finalists = json.loads((run_folder / "record.json").read_text())["finalists"]
    number = len(finalists)
    told = export_finalist(run_folder, number, tmp_path / "new" / "mine")
    assert "the same logits bit for bit on 30 test images" in told
    test = tiny.dataset().test()
    answers = network.load(tmp_path / "new" / "mine")(torch.from_numpy(test.images)).argmax(1).numpy()
    recorded = finalists[number - 1]["accuracy"]["test"]["approximate"]
    assert (answers == test.labels).mean() == pytest.approx(recorded)
    content = json.loads((tmp_path / "new" / "mine" / "network.json").read_text())
    assert (content["key"], content["test_accuracy"]) == (finalists[number - 1]["key"], recorded)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mine"]


@pytest.mark.parametrize(("missing", "left"), [("onnx", "no int8.onnx: onnx"), ("onnxruntime", "valid, but not run")])
def test_without_onnx_the_rest_is_written(missing, left, run_folder, tmp_path, monkeypatch):
    if missing == "onnxruntime":
        pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.setitem(sys.modules, missing, None)
    told = export_finalist(run_folder, 1, tmp_path / "mine")
    assert left in told and "pip install onnx onnxruntime" in told and "bit for bit" in told
    assert (tmp_path / "mine" / "int8.onnx").exists() == (missing != "onnx")


def test_what_is_not_the_same_network_is_not_called_exported(run_folder, tmp_path, monkeypatch):
    write = files.write
    monkeypatch.setattr(files, "write", lambda graph, about, folder: (write(graph, about, folder), change_code(folder)))
    with pytest.raises(RuntimeError, match="differs by up to"):
        export_finalist(run_folder, 1, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_layers_without_a_scale_or_with_other_options_are_refused():
    image, one = torch.rand(1, 3, 5, 5), torch.ones(3, 1, 1)
    for layer, expected in (
        (ApproxConv2d(3, 2, 1, multiplier=HALF), "train the network longer"),
        (ApproxConv2d(3, 2, 1, multiplier=HALF, compensate_bias=True), "mean error"),
        (nn.Conv2d(3, 2, 3, padding="same"), "zero padding"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), "whole windows"),
        (nn.Sequential(nn.Sigmoid()), "computes 'sigmoid'"),
        (nn.Sequential(*[nn.BatchNorm2d(3)] * 2), "uses 0 twice"),
    ):
        with pytest.raises(InputError, match=expected):
            record(layer, image, one, one)


def unfinished(run: Path) -> None:
    (run / "record.json").unlink()


def without_weights(run: Path) -> None:
    (run / "checkpoint" / "finalist1-approximate.pt").unlink()


def other_weights(run: Path) -> None:
    torch.save({"stem.0.weight": torch.ones(1)}, run / "checkpoint" / "finalist1-approximate.pt")


def failed(run: Path) -> None:
    record_ = json.loads((run / "record.json").read_text())
    record_["finalists"][0]["accuracy"]["test"]["approximate"] = None
    (run / "record.json").write_text(json.dumps(record_))


def other_images(run: Path) -> None:
    record_ = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**record_, "dataset_fingerprint": "0"}))


BAD = {
    "unfinished": (unfinished, [], "is not finished; go on with"),
    "weights deleted": (without_weights, [], "does not exist"),
    "weights of another network": (other_weights, [], "train it again"),
    "failed training": (failed, [], "failed"),
    "other images": (other_images, [], "not those of"),
    "finalist": (None, ["--finalist", "9"], "has no finalist 9"),
    "finalist zero": (None, ["--finalist", "0"], "has no finalist 0"),
    "finalist in words": (None, ["--finalist", "first"], "invalid int"),
    "flag": (None, ["--finalists", "1"], "did you mean --finalist"),
    "not a run": (lambda run: (run / "config.json").unlink(), [], "config.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_code_2(case, run_folder, tmp_path, capsys):
    harm, arguments, expected = BAD[case]
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    if harm:
        harm(run)
    assert main([str(run), "--to", str(tmp_path / "to"), *arguments]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1 and expected in told, told
    assert not (tmp_path / "to").exists()


def test_an_existing_folder_is_never_written_to(run_folder, tmp_path, capsys):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine").write_text("kept")
    assert main([str(run_folder), "--to", str(tmp_path / "to")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["to", "mine"]
    (tmp_path / "to" / "mine").unlink()
    assert main([str(run_folder), "--to", str(tmp_path / "to")]) == 0  # an empty one will do
    assert (tmp_path / "to" / "network.json").exists()
