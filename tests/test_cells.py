"""The cell space: architectures as data, drawing and mutating them, the networks they become, and the supernet."""

import copy
import hashlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spaces.arithmetic.arithmetics import ARITHMETICS
from spaces.arithmetic.factory import FixedLayers
from spaces.cells.architecture import CHOSEN_OPERATIONS, OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.cells.network import CellNetwork, DropPath, FixedCell
from spaces.cells.operations import FactorizedReduce, State
from spaces.cells.space import CellSpace, expand_cells
from spaces.cells.supernet import CellSupernet, MixedEdge, check_mixture
from spaces.costs import COSTS
from spaces.costs.trace import total_params, trace
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.multipliers.multiplier import Multiplier
from spaces.shape import NetworkShape

NAMES = ("mul8s_1KV8", "mul8s_1KVL", "mul8s_1L2D")
LIBRARY = catalogue.library(NAMES)
EXACT, ROUGH, CHEAP = NAMES
SHAPE = NetworkShape(channels=2, cells=3, classes=5, input_shape=(3, 8, 8))
CHOICES, SCOPES = ("edge", "cell", "network"), ("all", "separable")
every_space = pytest.mark.parametrize(
    ("choice", "scope"), list(itertools.product(CHOICES, SCOPES)), ids=lambda value: value
)
seeds = st.integers(0, 2**32 - 1)


def space_of(choice: str = "edge", scope: str = "all", nodes: int = 4) -> CellSpace:
    return CellSpace(LIBRARY, nodes=nodes, scope=scope, choice=choice)


def edges_of(cell: Cell) -> list[Edge]:
    return [edge for node in cell.nodes for edge in node]


def multipliers_of(cell: Cell) -> set[str]:
    """The circuits that govern something in a cell."""
    return {name for name in [cell.multiplier, *(edge.multiplier for edge in edges_of(cell))] if name is not None}


def assert_ties(architecture: CellArchitecture, choice: str) -> None:
    if choice == "cell":
        assert all(len(multipliers_of(cell)) <= 1 for cell in architecture.cells)
    if choice == "network":
        everywhere = set().union(*map(multipliers_of, architecture.cells), {architecture.multiplier} - {None})
        assert len(everywhere) <= 1


def assert_valid(architecture: CellArchitecture, nodes: int) -> None:
    """The rules of the space, written out again."""
    for cell in architecture.cells:
        assert len(cell.nodes) == nodes
        for index, (first, second) in enumerate(cell.nodes):
            assert 0 <= first.source < second.source < index + 2
            for edge in (first, second):
                assert edge.operation in OPERATION_NAMES and edge.operation != "none"
                halved_skip = edge.operation == "skip_connect" and cell.reduction and edge.source < 2
                governed = "conv" in edge.operation or (architecture.scope == "all" and halved_skip)
                assert (edge.multiplier in NAMES) if governed else (edge.multiplier is None)
        assert (cell.multiplier in NAMES) if architecture.scope == "all" else (cell.multiplier is None)
    assert (architecture.multiplier in NAMES) if architecture.scope == "all" else (architecture.multiplier is None)


def per_position(architecture: CellArchitecture, depth: int) -> CellArchitecture:
    return replace(architecture, cells=tuple(expand_cells(architecture.cells, depth)))


# -- architectures as data ---------------------------------------------------------------------------------------------


def a_form() -> dict:
    """The JSON form of an architecture of one node, typed by hand and canonical."""
    return {
        "space": "cells",
        "scope": "all",
        "multiplier": "mul8s_1KV8",
        "cells": [
            {
                "reduction": False,
                "multiplier": "mul8s_1KVL",
                "nodes": [[[0, "sep_conv_3x3", "mul8s_1L2D"], [1, "max_pool_3x3", None]]],
            },
            {
                "reduction": True,
                "multiplier": "mul8s_1KV8",
                "nodes": [[[0, "skip_connect", "mul8s_1KVL"], [1, "dil_conv_5x5", "mul8s_1KV8"]]],
            },
        ],
    }


def test_the_key_is_the_digest_of_the_canonical_form():
    architecture = CellArchitecture.from_json(a_form())
    assert architecture.to_json() == a_form()
    assert architecture.key == hashlib.sha256(json.dumps(a_form(), sort_keys=True).encode()).hexdigest()


@given(seeds, st.sampled_from(CHOICES), st.sampled_from(SCOPES), st.integers(1, 4), st.sampled_from([None, 3, 5, 8]))
def test_json_is_lossless(seed, choice, scope, nodes, depth):
    architecture = space_of(choice, scope, nodes).sample(np.random.default_rng(seed))
    if depth:
        architecture = per_position(architecture, depth)
    back = CellArchitecture.from_json(json.loads(json.dumps(architecture.to_json())))
    assert back == architecture and back.key == architecture.key and hash(back) == hash(architecture)
    assert back.to_json() == architecture.to_json()


@given(seeds, st.sampled_from(SCOPES))
def test_what_cannot_be_told_apart_has_one_key(seed, scope):
    rng = np.random.default_rng(seed)
    architecture = space_of(scope=scope).sample(rng)
    form = architecture.to_json()
    for cell in form["cells"]:
        for node in cell["nodes"]:
            for edge in node:
                if edge[2] is None:
                    edge[2] = str(rng.choice(NAMES))  # a circuit that governs nothing
            if rng.random() < 0.5:
                node.reverse()
        if scope == "separable":
            cell["multiplier"] = CHEAP
    if scope == "separable":
        form["multiplier"] = CHEAP
    same = CellArchitecture.from_json(form)
    assert same == architecture and same.key == architecture.key and hash(same) == hash(architecture)


def test_what_can_be_told_apart_has_another_key():
    changes = [
        (("multiplier",), ROUGH),
        (("cells", 0, "multiplier"), EXACT),
        (("cells", 1, "multiplier"), CHEAP),
        (("cells", 0, "nodes", 0, 0, 2), ROUGH),
        (("cells", 0, "nodes", 0, 0, 1), "sep_conv_5x5"),
        (("cells", 0, "nodes", 0, 1, 1), "avg_pool_3x3"),
        (("cells", 1, "nodes", 0, 0, 2), EXACT),  # the projection of a skip connection that halves the resolution
        (("scope",), "separable"),
    ]
    keys = {CellArchitecture.from_json(a_form()).key}
    for path, value in changes:
        form = a_form()
        put(form, path, value)
        keys.add(CellArchitecture.from_json(form).key)
    assert len(keys) == 1 + len(changes)


def put(form: object, path: tuple, value: object) -> None:
    for step in path[:-1]:
        form = form[step]
    form[path[-1]] = value


NODE = ("cells", 0, "nodes", 0)
SEP = [0, "sep_conv_3x3", "mul8s_1KV8"]
POOL = [1, "max_pool_3x3", None]
WRONG = {
    "another space": (("space",), "grid"),
    "an unknown scope": (("scope",), "separabel"),
    "a scope that is a list": (("scope",), ["all"]),
    "no cells": (("cells",), []),
    "cells that are a number": (("cells",), 3),
    "a cell that is a list": (("cells", 0), []),
    "a cell that is text": (("cells", 0), "normal"),
    "a reduction that is a number": (("cells", 0, "reduction"), 0),
    "a reduction that is text": (("cells", 0, "reduction"), "false"),
    "no nodes": (("cells", 0, "nodes"), []),
    "nodes that are null": (("cells", 0, "nodes"), None),
    "no edge": (NODE, []),
    "one edge": (NODE, [SEP]),
    "three edges": (NODE, [SEP, POOL, SEP]),
    "the same source twice": (NODE, [SEP, [0, "max_pool_3x3", None]]),
    "an edge of two": ((*NODE, 0), [0, "sep_conv_3x3"]),
    "an edge of four": ((*NODE, 0), [*SEP, None]),
    "an edge that is a number": ((*NODE, 0), 7),
    "a source too high": ((*NODE, 0, 0), 2),
    "a negative source": ((*NODE, 0, 0), -1),
    "a source that is text": ((*NODE, 0, 0), "0"),
    "a source that is a fraction": ((*NODE, 0, 0), 0.0),
    "a source that is true": ((*NODE, 1, 0), True),
    "an unknown operation": ((*NODE, 0, 1), "sep_conv_7x7"),
    "the operation none": ((*NODE, 0, 1), "none"),
    "an operation that is null": ((*NODE, 0, 1), None),
    "an operation that is a list": ((*NODE, 0, 1), ["sep_conv_3x3"]),
    "a convolution without a multiplier": ((*NODE, 0, 2), None),
    "a multiplier that is a number": ((*NODE, 0, 2), 8),
    "a halving skip without a multiplier": (("cells", 1, "nodes", 0, 0, 2), None),
    "a cell's multiplier that is null": (("cells", 0, "multiplier"), None),
    "a cell's multiplier that is a number": (("cells", 0, "multiplier"), 8),
    "a cell's multiplier that is a list": (("cells", 1, "multiplier"), ["mul8s_1KV8"]),
    "the network's multiplier that is null": (("multiplier",), None),
    "the network's multiplier that is a number": (("multiplier",), 8),
    "the network's multiplier that is an object": (("multiplier",), {"name": "mul8s_1KV8"}),
    "cells of different numbers of nodes": (
        ("cells", 1, "nodes"),
        [[SEP, [1, "dil_conv_5x5", "mul8s_1KV8"]], [SEP, POOL]],
    ),
}


@pytest.mark.parametrize(("path", "value"), WRONG.values(), ids=WRONG)
def test_a_form_with_one_thing_wrong_is_refused(path, value):
    form = a_form()
    put(form, path, copy.deepcopy(value))
    with pytest.raises(InputError):
        CellArchitecture.from_json(form)


@pytest.mark.parametrize("data", [None, 3, "cells", [], {}, [a_form()], json.dumps(a_form())], ids=lambda d: str(d)[:9])
def test_a_form_of_another_type_is_refused(data):
    with pytest.raises(InputError):
        CellArchitecture.from_json(data)


@pytest.mark.parametrize(
    "path",
    [("space",), ("scope",), ("multiplier",), ("cells",), ("cells", 0, "nodes"), ("cells", 0, "reduction"),
     ("cells", 1, "multiplier"), ("cells", 1)],
    ids=str,
)  # fmt: skip
def test_a_form_with_something_missing_is_refused(path):
    form = a_form()
    inner = form
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    with pytest.raises(InputError):
        CellArchitecture.from_json(form)


def test_refusals_name_what_is_meant():
    for path, value, message in (
        ((*NODE, 0, 1), "sep_conv_3x4", "did you mean sep_conv_3x3"),
        (("scope",), "separabel", "did you mean separable"),
        (("space",), "grid", "grid"),
    ):
        form = a_form()
        put(form, path, value)
        with pytest.raises(InputError, match=message):
            CellArchitecture.from_json(form)


# -- drawing and mutating ----------------------------------------------------------------------------------------------


@every_space
def test_samples_are_valid_and_reproducible(choice, scope):
    for nodes in (1, 4):
        space = space_of(choice, scope, nodes)
        drawn = [space.sample(rng) for rng in [np.random.default_rng(3)] for _ in range(20)]
        again = [space.sample(rng) for rng in [np.random.default_rng(3)] for _ in range(20)]
        assert drawn == again and len({a.key for a in drawn}) > 15
        for architecture in drawn:
            assert_valid(architecture, nodes)
            assert_ties(architecture, choice)
            assert architecture.scope == scope and [c.reduction for c in architecture.cells] == [False, True]


def test_samples_are_uniform():
    """Counts of sources, operations and circuits in 1,500 draws, each within 4.5 standard deviations of its mean."""
    draws, space = 1500, space_of(nodes=2)
    rng = np.random.default_rng(0)
    operations, pairs, multipliers = {}, {}, {}
    for _ in range(draws):
        architecture = space.sample(rng)
        for kind, cell in enumerate(architecture.cells):
            for edge in edges_of(cell):
                operations[edge.operation] = operations.get(edge.operation, 0) + 1
            pair = tuple(edge.source for edge in cell.nodes[1])
            pairs[kind, pair] = pairs.get((kind, pair), 0) + 1
            multipliers[kind, cell.multiplier] = multipliers.get((kind, cell.multiplier), 0) + 1
        multipliers["stem", architecture.multiplier] = multipliers.get(("stem", architecture.multiplier), 0) + 1
    for counts, trials, outcomes, total in (
        (operations, 8 * draws, 7, 7),
        (pairs, draws, 3, 6),
        (multipliers, draws, 3, 9),
    ):
        assert len(counts) == total
        mean, deviation = trials / outcomes, np.sqrt(trials * (1 / outcomes) * (1 - 1 / outcomes))
        assert all(abs(count - mean) < 4.5 * deviation for count in counts.values())


@every_space
@pytest.mark.parametrize("depth", [None, 4], ids=["pair", "per position"])
def test_mutants_are_valid_neighbours(choice, scope, depth):
    space, rng = space_of(choice, scope, 3), np.random.default_rng(11)
    for _ in range(4):
        architecture = space.sample(rng)
        if depth:
            architecture = per_position(architecture, depth)
        for _ in range(60):
            child = space.mutate(architecture, rng)
            assert child.key != architecture.key
            assert_valid(child, 3)
            # Cells that repeat the pair share its circuits at first, and drift apart only one at a time.
            assert_ties(child, choice)
            assert CellArchitecture.from_json(child.to_json()) == child
            assert [c.reduction for c in child.cells] == [c.reduction for c in architecture.cells]
            architecture = child


def test_a_tied_edge_wakes_up_with_the_multiplier_of_its_own_cell():
    """Both cells have the same pooling edge; in whichever it becomes a convolution, that cell's circuit governs it."""
    space, rng = space_of("cell", nodes=1), np.random.default_rng(0)
    pools = ((Edge(0, "max_pool_3x3", None), Edge(1, "avg_pool_3x3", None)),)
    architecture = CellArchitecture((Cell(pools, False, EXACT), Cell(pools, True, CHEAP)), ROUGH)
    woken = 0
    for _ in range(300):
        child = space.mutate(architecture, rng)
        for cell in child.cells:
            assert len(multipliers_of(cell)) == 1
            woken += any(edge.multiplier for edge in edges_of(cell))
    assert woken > 20


def difference(first: CellArchitecture, second: CellArchitecture) -> list[tuple]:
    """Everything that differs: ("stem",), (cell, "projections") or (cell, node, edges before, edges after)."""
    found = [("stem",)] if first.multiplier != second.multiplier else []
    for at, (before, after) in enumerate(zip(first.cells, second.cells)):
        if before.multiplier != after.multiplier:
            found.append((at, "projections"))
        for node, (old, new) in enumerate(zip(before.nodes, after.nodes)):
            if old != new:
                found.append((at, node, set(old) - set(new), set(new) - set(old)))
    return found


def test_a_mutant_differs_in_one_thing_and_anything_can_change():
    space, rng = space_of(nodes=2), np.random.default_rng(2)
    architecture = space.sample(rng)
    seen, kinds = set(), set()
    for _ in range(400):
        [change] = difference(architecture, space.mutate(architecture, rng))
        seen.add(change[:2])
        if len(change) == 4:
            [old], [new] = change[2:]
            changed = [
                field for field in ("source", "operation", "multiplier") if getattr(old, field) != getattr(new, field)
            ]
            # A multiplier may come or go with the operation or the source that needs it, but not change besides.
            if "source" in changed or "operation" in changed:
                assert len(set(changed) & {"source", "operation"}) == 1
                assert "multiplier" not in changed or None in (old.multiplier, new.multiplier)
            kinds.add(changed[0])
    assert seen == {("stem",), *itertools.product((0, 1), ("projections", 0, 1))}
    assert kinds == {"source", "operation", "multiplier"}


@every_space
def test_the_hungriest_network_costs_most(choice, scope):
    space, rng, model = space_of(choice, scope, 1), np.random.default_rng(0), COSTS["horowitz45"]
    most = model.network(space.costs(space.reference(), SHAPE), "approximate").total
    assert_valid(space.reference(), 1)
    for _ in range(4):
        assert model.network(space.costs(space.sample(rng), SHAPE), "approximate").total <= most


# -- choosing from scores ----------------------------------------------------------------------------------------------


@every_space
def test_sites_tie_what_the_choice_ties(choice, scope):
    sites = space_of(choice, scope, 2).sites
    edges = 2 + 3
    rows = [*sites.edges.flatten().tolist(), *(sites.cells or ()), *([] if sites.network is None else [sites.network])]
    assert sorted(set(rows)) == list(range(sites.count))
    outside = scope == "all"
    assert (sites.cells is not None) == (sites.network is not None) == outside
    groups = {"edge": 2 * edges + 3 * outside, "cell": 2 + outside, "network": 1}
    assert sites.count == groups[choice]
    if choice == "cell":
        assert all(len(set(row)) == 1 for row in sites.edges.tolist())
        assert not outside or list(sites.cells) == sites.edges[:, 0].tolist()


@given(seeds, st.sampled_from(CHOICES), st.sampled_from(SCOPES), st.integers(1, 4))
def test_derivation_equals_brute_force(seed, choice, scope, nodes):
    space, rng = space_of(choice, scope, nodes), np.random.default_rng(seed)
    edges = [(node, source) for node in range(nodes) for source in range(node + 2)]  # the order of DARTS
    operation_scores = rng.normal(size=(2, len(edges), 8))
    operation_scores[..., 0] += 10  # "none" is never chosen, however high
    multiplier_scores = rng.normal(size=(space.sites.count, 3))
    got = space.derive(operation_scores, multiplier_scores)

    def best_multiplier(row: int) -> str:
        return max(zip(multiplier_scores[row], NAMES))[1]

    cells = []
    for kind in range(2):
        chosen = []
        for node in range(nodes):
            into = [(source, operation_scores[kind][edges.index((node, source))]) for source in range(node + 2)]
            # Among all pairs of sources and of operations the one with the largest sum of scores.
            best = max(
                (
                    (left[1][i] + right[1][j], (left[0], i), (right[0], j))
                    for left, right in itertools.combinations(into, 2)
                    for i, j in itertools.product(range(1, 8), repeat=2)
                ),
                key=lambda candidate: candidate[0],
            )
            chosen.append(
                tuple(
                    Edge(s, OPERATION_NAMES[o], best_multiplier(space.sites.edges[kind, edges.index((node, s))]))
                    for s, o in best[1:]
                )
            )
        outer = best_multiplier(space.sites.cells[kind]) if scope == "all" else None
        cells.append(Cell(tuple(chosen), bool(kind), outer))
    stem = best_multiplier(space.sites.network) if scope == "all" else None
    assert got == CellArchitecture(tuple(cells), stem, scope)
    assert_valid(got, nodes)
    assert_ties(got, choice)


# -- networks ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(seeds, st.sampled_from(SCOPES), st.sampled_from([(8, 8), (7, 9), (5, 4), (4, 11)]), st.integers(3, 5))
def test_every_sample_computes_in_every_arithmetic(seed, scope, size, depth):
    space = space_of(scope=scope, nodes=2)
    architecture = space.sample(np.random.default_rng(seed))
    shape = NetworkShape(channels=2, cells=depth, classes=5, input_shape=(3, *size))
    images = torch.randn(3, 3, *size)
    for arithmetic in ARITHMETICS:
        network = space.build(architecture, shape, arithmetic)
        logits = network(images)
        logits.sum().backward()
        assert logits.shape == (3, 5) and torch.isfinite(logits).all()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        assert torch.isfinite(network.eval()(images)).all()


def test_the_cells_have_the_widths_and_sizes_of_darts():
    """Depth 6, C = 4, two nodes: reductions at positions 2 and 4 double the width and halve 7×9 to 4×5 and 2×3."""
    space = space_of(nodes=2)
    shape = NetworkShape(channels=4, cells=6, classes=5, input_shape=(1, 7, 9))
    network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    shapes = []
    for stage in network.cells:
        stage.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    network(torch.randn(2, 1, 7, 9))
    assert shapes == [(8, 7, 9), (8, 7, 9), (16, 4, 5), (16, 4, 5), (32, 2, 3), (32, 2, 3)]
    assert network.stem[0].out_channels == 12 and network.classifier.in_features == 32


def test_factorized_reduction_by_hand():
    """The second half of the channels sees the image shifted down and right by a pixel, with zeros beyond odd edges."""
    reduce = FactorizedReduce(1, 2, FixedLayers("fp32", None), affine=False).eval()
    nn.init.ones_(reduce.straight.weight), nn.init.ones_(reduce.shifted.weight)
    image = torch.arange(1.0, 16.0).view(1, 1, 3, 5)
    image[0, 0, 0, 2] = -3  # ReLU comes first
    straight, shifted = reduce(image)[0]
    assert torch.allclose(straight, torch.tensor([[1.0, 0, 5], [11, 13, 15]]), rtol=1e-4)
    assert torch.allclose(shifted, torch.tensor([[7.0, 9, 0], [0, 0, 0]]), rtol=1e-4)


@pytest.mark.parametrize("scope", SCOPES)
def test_costs_do_not_depend_on_the_arithmetic(scope):
    space = space_of(scope=scope, nodes=2)
    architecture, shape = space.sample(np.random.default_rng(4)), replace(SHAPE, input_shape=(3, 7, 9), auxiliary=True)
    rows = space.costs(architecture, shape)
    for arithmetic in ARITHMETICS:
        network = space.build(architecture, replace(shape, auxiliary=False), arithmetic)
        assert trace(network, shape.input_shape, integer=scope == "all") == rows
        assert total_params(rows) == sum(p.numel() for p in network.parameters())
    governed = {row.multiplier.name for row in rows if row.multiplier}
    assert governed == set().union(*map(multipliers_of, architecture.cells), {architecture.multiplier} - {None})
    separable = [row for row in rows if row.kind == "separable"]
    assert all(row.multiplier for row in separable)
    assert scope == "all" or not any(row.multiplier for row in rows if row.kind != "separable")


def test_normalisation_during_search_is_that_of_darts():
    """No affine parameters inside the cells, and a normalisation after pooling; the other way round afterwards."""
    space = space_of(nodes=1)
    pooled = ((Edge(0, "skip_connect", EXACT), Edge(1, "avg_pool_3x3", None)),)
    architecture = CellArchitecture((Cell(pooled, False, EXACT), Cell(pooled, True, EXACT)), EXACT)
    for searching in (True, False):
        network = space.build(architecture, SHAPE, searching=searching)
        norms = [module for module in network.cells.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.affine for norm in norms} == {not searching}
        # Two projections in each of three cells, a halving skip in two of them, and three poolings.
        assert len(norms) == 6 + 2 + 3 * searching
        assert network.stem[1].affine
    supernet = CellSupernet(space, SHAPE)
    assert not any(module.affine for module in supernet.cells.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_network_with_a_cell_per_position():
    space, rng = space_of(nodes=2), np.random.default_rng(9)
    pair, depth = space.sample(rng), 5
    shape = replace(SHAPE, cells=depth)
    repeated = per_position(pair, depth)
    assert [cell.reduction for cell in repeated.cells] == [False, True, False, True, False]
    assert space.costs(repeated, shape) == space.costs(pair, shape)
    for _ in range(20):
        repeated = space.mutate(repeated, rng)
    assert repeated.cells[0] != repeated.cells[2] or repeated.cells[2] != repeated.cells[4]
    network = space.build(repeated, shape)
    for stage, cell in zip(network.cells, repeated.cells):
        sources = [[edge.source for edge in node] for node in cell.nodes]
        assert stage.body.sources == sources
        for row in trace(network, shape.input_shape, integer=True):
            if row.kind == "separable" and row.name.startswith(f"cells.{repeated.cells.index(cell)}."):
                assert row.multiplier.name in multipliers_of(cell)
    assert torch.isfinite(network(torch.randn(2, 3, 8, 8))).all()


def test_what_cannot_be_built_is_refused():
    space = space_of(nodes=2)
    architecture = space.sample(np.random.default_rng(0))

    def refused(match: str, a: CellArchitecture = architecture, arithmetic: str = "fp32", **shape) -> None:
        with pytest.raises(InputError, match=match):
            space.build(a, replace(SHAPE, **shape), arithmetic)

    refused("did you mean approximate", arithmetic="aproximate")
    refused("at least 3 cells", cells=2)
    refused("even number", channels=3)
    refused("even number", channels=0)
    refused("at least 4×4", input_shape=(3, 8, 3))
    refused("5 cells do not fit a network of 3", a=per_position(architecture, 5))
    pools = ((Edge(0, "max_pool_3x3", None), Edge(1, "max_pool_3x3", None)),)
    swapped = CellArchitecture((Cell(pools, True, EXACT), Cell(pools, False, EXACT)), EXACT)
    refused("2 cells do not fit", a=swapped)
    refused("unknown multiplier.*mul8s_1KVX.*did you mean", a=replace(architecture, multiplier="mul8s_1KVX"))
    with pytest.raises(InputError, match="mul8s_1KR3"):  # known to the catalogue, but not in this library
        space.costs(replace(architecture, multiplier="mul8s_1KR3"), SHAPE)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"scope": "al"}, "scope"), ({"choice": "edges"}, "did you mean edge"), ({"nodes": 0}, "at least one node")],
)
def test_an_impossible_space_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        CellSpace(LIBRARY, **arguments)


# -- the supernet ------------------------------------------------------------------------------------------------------


def certain(space: CellSpace, architecture: CellArchitecture) -> tuple[Tensor, Tensor, np.ndarray]:
    """One-hot α ("none" on edges that are not kept) and β for an architecture, and the indices of its operations."""
    operations = torch.zeros(2, len(space.edges), len(OPERATION_NAMES))
    multipliers = torch.zeros(space.sites.count, len(LIBRARY))
    sampled = np.full((2, len(space.edges)), OPERATION_NAMES.index("avg_pool_3x3"))
    operations[..., 0], rows = 1.0, {}
    for kind, cell in enumerate(architecture.cells):
        for node, edges in enumerate(cell.nodes):
            for edge in edges:
                at, operation = space.edges.index((node, edge.source)), OPERATION_NAMES.index(edge.operation)
                operations[kind, at, 0], operations[kind, at, operation] = 0.0, 1.0
                sampled[kind, at] = operation
                rows[space.sites.edges[kind, at]] = edge.multiplier or rows.get(space.sites.edges[kind, at])
        if space.scope == "all":
            rows[space.sites.cells[kind]] = cell.multiplier
    if space.scope == "all":
        rows[space.sites.network] = architecture.multiplier
    for row in range(space.sites.count):
        name = rows.get(row)
        multipliers[row, 0 if name is None else NAMES.index(name)] = 1.0
    return operations, multipliers, sampled


def copy_state(supernet: CellSupernet, network: CellNetwork, space: CellSpace, architecture: CellArchitecture) -> None:
    """Weights and buffers of the operations that the architecture keeps, and of everything around the cells."""
    network.stem.load_state_dict(supernet.stem.state_dict())
    head = supernet.classifier.state_dict()
    head["weight"] = head["weight"].flatten(1)
    network.classifier.load_state_dict(head)
    for theirs, mine, kind in zip(supernet.cells, network.cells, supernet.kinds):
        mine.project_first.load_state_dict(theirs.project_first.state_dict())
        mine.project_second.load_state_dict(theirs.project_second.state_dict())
        for node, edges in enumerate(architecture.cells[kind].nodes):
            for k, edge in enumerate(edges):
                operation = theirs.body.edges[space.edges.index((node, edge.source))].operations[edge.operation]
                mine.body.operations[node][k].load_state_dict(operation.state_dict())


DEEP = NetworkShape(channels=2, cells=4, classes=5, input_shape=(3, 7, 8))


def both_networks(choice: str, scope: str, seed: int) -> tuple:
    space = space_of(choice, scope, nodes=3)
    architecture = space.sample(np.random.default_rng(seed))
    torch.manual_seed(seed)
    supernet = CellSupernet(space, DEEP)
    network = space.build(architecture, DEEP, "approximate", searching=True)
    copy_state(supernet, network, space, architecture)
    return space, architecture, supernet, network


@every_space
def test_a_certain_supernet_is_the_stand_alone_network(choice, scope):
    space, architecture, supernet, network = both_networks(choice, scope, seed=len(choice))
    operations, multipliers, sampled = certain(space, architecture)
    for step in range(3):  # scales and statistics move in the same way
        images = torch.randn(4, 3, 7, 8) * (1 + step)
        supernet.choose(operations, multipliers, sampled if step == 1 else None)
        expected = network(images)
        assert expected.std() > 0.01
        assert torch.allclose(supernet(images), expected, rtol=1e-5, atol=1e-5)
    supernet.eval(), network.eval()
    images = torch.randn(4, 3, 7, 8)
    expected = network(images)
    for chosen in (None, sampled):
        supernet.choose(operations, multipliers, chosen)
        assert torch.allclose(supernet(images), expected, rtol=1e-5, atol=1e-5)
    late = space.build(architecture, DEEP, "approximate", searching=True).eval()
    copy_state(supernet, late, space, architecture)
    assert torch.allclose(late(images), expected, rtol=1e-5, atol=1e-5)
    # The comparison can fail: other operations, or other circuits, give other logits.
    supernet.choose(operations.roll(1, dims=-1), multipliers)
    assert not torch.allclose(supernet(images), expected, rtol=1e-4, atol=1e-4)
    if scope == "all":
        supernet.choose(operations, multipliers.roll(1, dims=1))
        assert not torch.allclose(supernet(images), expected, rtol=1e-4, atol=1e-4)


def test_the_gradients_of_a_certain_supernet_are_those_of_the_network():
    space, architecture, supernet, network = both_networks("edge", "all", 2)
    operations, multipliers, sampled = certain(space, architecture)
    images, labels = torch.randn(4, 3, 7, 8), torch.tensor([0, 1, 2, 3])
    supernet.choose(operations, multipliers, sampled)
    for net in (supernet, network):
        nn.functional.cross_entropy(net(images), labels).backward()
    pairs = [(supernet.stem[0], network.stem[0])]
    for theirs, mine, kind in zip(supernet.cells, network.cells, supernet.kinds):
        for node, edges in enumerate(architecture.cells[kind].nodes):
            for k, edge in enumerate(edges):
                operation = theirs.body.edges[space.edges.index((node, edge.source))].operations[edge.operation]
                pairs.append((operation, mine.body.operations[node][k]))
    compared = 0
    for theirs, mine in pairs:
        for (name, p), (_, q) in zip(theirs.named_parameters(), mine.named_parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5 * q.grad.abs().max().item()), name
            compared += 1
    assert compared > 10


def test_the_supernet_is_differentiable_in_every_choice():
    space = space_of(nodes=2)
    supernet = CellSupernet(space, SHAPE)
    alpha = torch.randn(2, len(space.edges), len(OPERATION_NAMES), requires_grad=True)
    beta = torch.randn(space.sites.count, len(LIBRARY), requires_grad=True)
    supernet.choose(alpha.softmax(-1), beta.softmax(-1))
    nn.functional.cross_entropy(supernet(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
    for parameter in (alpha, beta):
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad.abs().amax(dim=-1) > 0).all()


def mixed_edge(channels: int, stride: int, partial: int) -> MixedEdge:
    return MixedEdge(channels, stride, dict.fromkeys((True, False), FixedLayers("fp32", None)), partial)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixed_edge_is_the_weighted_sum_of_its_operations(stride):
    edge, x = mixed_edge(4, stride, 1).eval(), torch.randn(2, 4, 7, 6)
    edge.weights = torch.rand(len(OPERATION_NAMES))
    expected = 0
    for index, name in enumerate(OPERATION_NAMES):
        if name != "none":
            expected = expected + edge.weights[index] * State(x).through(edge.operations[name])
    assert torch.allclose(edge(State(x)), expected, atol=1e-6)
    edge.sampled = "dil_conv_3x3"
    alone = edge.weights[OPERATION_NAMES.index("dil_conv_3x3")] * edge.operations["dil_conv_3x3"](x.relu())
    assert torch.allclose(edge(State(x)), alone, atol=1e-7)
    assert set(edge.operations) == set(CHOSEN_OPERATIONS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("partial", [2, 4])
def test_partial_channels_pass_the_others_by(stride, partial):
    """PC-DARTS: 1/K of the channels computes, the rest is pooled where the stride asks, and the groups interleave."""
    edge, x = mixed_edge(8, stride, partial).eval(), torch.randn(2, 8, 7, 6)
    edge.weights = torch.rand(len(OPERATION_NAMES))
    count = 8 // partial
    inside = sum(
        edge.weights[OPERATION_NAMES.index(name)] * State(x[:, :count]).through(edge.operations[name])
        for name in CHOSEN_OPERATIONS
    )
    beside = x[:, count:]
    if stride == 2:
        padded = nn.functional.pad(beside, (0, 0, 0, 1), value=-torch.inf)
        beside = padded.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    grouped = torch.cat([inside, beside], dim=1)
    order = [group * count + channel for channel in range(count) for group in range(partial)]
    assert torch.allclose(edge(State(x)), grouped[:, order], atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_a_partial_supernet_computes(size):
    space = space_of(nodes=2)
    supernet = CellSupernet(space, NetworkShape(4, 3, 5, (3, *size)), partial=2)
    supernet.choose(torch.full((2, 5, 8), 1 / 8), torch.full((space.sites.count, 3), 1 / 3))
    for net in (supernet, supernet.eval()):
        logits = net(torch.randn(3, 3, *size))
        assert logits.shape == (3, 5) and torch.isfinite(logits).all()


@pytest.mark.parametrize("partial", [0, -1, 2, 4])
def test_channels_that_cannot_be_divided_are_refused(partial):
    with pytest.raises(InputError, match="partial"):
        CellSupernet(space_of(nodes=1), SHAPE, partial=partial)


# -- training aids -----------------------------------------------------------------------------------------------------


def test_an_auxiliary_head_is_there_only_if_asked_and_only_in_training():
    space = space_of(nodes=1)
    architecture, images = space.sample(np.random.default_rng(0)), torch.randn(2, 3, 8, 8)
    plain = space.build(architecture, SHAPE, "fp32")
    plain(images)
    assert plain.auxiliary is None and plain.auxiliary_logits is None
    network = space.build(architecture, replace(SHAPE, auxiliary=True), "fp32")
    network(images)
    assert network.auxiliary_logits.shape == (2, 5)
    network.auxiliary_logits.sum().backward()
    assert network.cells[0].project_first[1].weight.grad is not None
    network.eval()(images)
    assert network.auxiliary_logits is None


@pytest.mark.parametrize(
    "size",
    [(32, 32), (16, 16), (8, 8), (7, 9), (30, 32), (32, 48), (64, 32), (64, 64), (4, 20)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_an_auxiliary_head_fits_every_image(size):
    space = space_of(nodes=1)
    shape = NetworkShape(2, 3, 5, (3, *size), auxiliary=True)
    network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    network(torch.randn(2, 3, *size))
    assert network.auxiliary_logits.shape == (2, 5)


def test_the_auxiliary_head_is_that_of_darts():
    """At C = 36, 32×32: 576 channels at position 13; 128·576 + 768·128·2·2 weights, two norms, ten classes."""
    space = space_of()
    shape = NetworkShape(36, 20, 10, (3, 32, 32), auxiliary=True)
    with torch.device("meta"):
        network = space.build(space.sample(np.random.default_rng(0)), shape, "fp32")
    by_hand = 128 * 576 + 2 * 128 + 768 * 128 * 4 + 2 * 768 + 768 * 10 + 10
    assert sum(p.numel() for p in network.auxiliary.parameters()) == by_hand
    assert network.auxiliary_position == 13


def test_dropped_paths_keep_the_expectation():
    drop, images = DropPath(), 40_000
    drop.probability, drop.generator = 0.3, torch.Generator().manual_seed(1)
    x = torch.ones(images, 2, 1, 2)
    y = drop(x)
    assert (y == y[:, :1, :, :1]).all()  # the whole path of an image
    kept = y[:, 0, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    error = (0.3 / 0.7 / images) ** 0.5  # the variance of a kept-and-scaled path is p / (1 − p)
    assert abs(kept.mean().item() - 1) < 4 * error


def test_nothing_is_dropped_in_evaluation_or_without_a_probability():
    drop, x = DropPath(), torch.randn(8, 2, 3, 3)
    assert torch.equal(drop(x), x)
    drop.probability = 0.9
    assert not torch.equal(drop(x), x)
    assert torch.equal(drop.eval()(x), x)


def test_dropped_paths_follow_their_generator_alone():
    drop, x, results = DropPath(), torch.ones(64, 1, 1, 1), []
    drop.probability = 0.5
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        drop.generator = torch.Generator().manual_seed(5)
        results.append(torch.cat([drop(x), drop(x)]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)
    assert not torch.equal(results[0][:64], results[0][64:])


def test_identities_are_never_dropped():
    drop = DropPath()
    drop.probability = 1 - 1e-9
    edges = ((Edge(0, "skip_connect", None), Edge(1, "max_pool_3x3", None)),)
    body = FixedCell(Cell(edges, False, None), 2, lambda _: None, drop, searching=False)
    first, second = torch.randn(2, 4, 2, 5, 5)
    assert torch.equal(body(first, second), first)
    space = space_of(nodes=2)
    network = space.build(space.sample(np.random.default_rng(0)), SHAPE, "fp32")
    assert [module for module in network.modules() if isinstance(module, DropPath)] == [network.drop_path]


def test_a_library_whose_mixture_would_need_gigabytes_is_refused():
    """64 tables of full rank in 31 places; the line says what is small enough, and that is."""
    rng = np.random.default_rng(0)
    library = [
        Multiplier(name=f"m{number}", signed=True, table=rng.integers(-99, 99, (256, 256)), power_mw=0.3)
        for number in range(64)
    ]
    with pytest.raises(
        InputError, match="a mixture of 64 multipliers .* 256 factors, in 31 places, .*; choose up to 63"
    ):
        check_mixture(CellSpace(library, 4))
    check_mixture(CellSpace(library[:63], 4))
    check_mixture(CellSpace(library, 4, choice="network"))
    alike = [replace(catalogue.get(EXACT), name=f"m{number}") for number in range(300)]
    check_mixture(CellSpace(alike, 4))  # one factor, however many there are
