"""The grid space: graphs in one form, genotypes as data, drawing and mutating them, and the networks they become."""

import copy
import hashlib
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import spaces.grid.space as space_module
from spaces.arithmetic.factory import ARITHMETICS
from spaces.energy import energy_model, total_macs, total_params, trace
from spaces.errors import InputError
from spaces.grid.architecture import BLOCKS, FUNCTIONS, GridArchitecture, GridNode
from spaces.grid.canonical import _Graph, canonical_order
from spaces.grid.network import GridNetwork
from spaces.grid.space import MUTATION_RATE, GridSpace
from spaces.multipliers import catalogue
from spaces.shape import NetworkShape

NAMES = ("mul8s_1KV8", "mul8s_1KVL", "mul8s_1L2D")
LIBRARY = catalogue.library(NAMES)
EXACT, ROUGH, CHEAP = NAMES
SHAPE = NetworkShape(channels=2, cells=1, classes=5, input_shape=(3, 8, 8))
GRIDS = [(1, 1, 1), (1, 5, 5), (1, 5, 1), *((3, 8, levels_back) for levels_back in range(1, 9)), (5, 30, 10)]
seeds = st.integers(0, 2**32 - 1)
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "{}x{}, {} back".format(*grid))
both_choices = pytest.mark.parametrize("choice", ["edge", "network"])

Labelled = tuple[list[str], list[list[int]]]  # labels and sources of a graph's nodes


def gene(function: str, *sources: int, multiplier: str = ROUGH) -> GridNode:
    return GridNode(function, multiplier, (sources[0], sources[-1]))


def architecture_of(*nodes: GridNode, rows: int = 1, output: int = 0, multiplier: str = EXACT) -> GridArchitecture:
    """Every node may read all columns before its own; the last node is the output unless another is named."""
    columns = len(nodes) // rows
    return GridArchitecture(rows, columns, columns, nodes, output or len(nodes), multiplier)


# -- graphs in one form ------------------------------------------------------------------------------------------------


def form_of(graph: Labelled, order: list[int]) -> tuple:
    """The graph with its nodes listed in this order."""
    labels, sources = graph
    rank = {node: number for number, node in enumerate(order)}
    return tuple((labels[node], tuple(sorted(rank[source] for source in sources[node]))) for node in order)


def canonical_form(graph: Labelled) -> tuple:
    order = canonical_order(*graph)
    assert sorted(order) == list(range(len(graph[0])))
    form = form_of(graph, order)
    assert all(source < node for node, (_, sources) in enumerate(form) for source in sources)
    return form


def brute_form(graph: Labelled) -> tuple:
    """The smallest of all ways to list the nodes: equal for two graphs exactly when one is a relabelled other."""
    return min(form_of(graph, order) for order in itertools.permutations(range(len(graph[0]))))


def relabelled(graph: Labelled, rng: np.random.Generator) -> Labelled:
    """The same graph with its nodes, and the sources of each, in random order."""
    labels, sources = graph
    order = rng.permutation(len(labels)).tolist()
    return (
        [labels[node] for node in order],
        [[order.index(source) for source in rng.permutation(sources[node]).tolist()] for node in order],
    )


def small_graph(nodes: int, labels: str, rng: np.random.Generator) -> Labelled:
    """At most three sources per node, possibly the same ones."""
    sources = [rng.integers(node, size=rng.integers(4)).tolist() if node else [] for node in range(nodes)]
    return [str(rng.choice(list(labels))) for _ in range(nodes)], sources


def assert_same_classes(graphs: list[Labelled]) -> None:
    """Our form and brute force tell the same graphs apart."""
    forms = {(canonical_form(graph), brute_form(graph)) for graph in graphs}
    assert len(forms) == len({ours for ours, _ in forms}) == len({brute for _, brute in forms})
    assert 10 < len(forms) < len(graphs)


def test_all_graphs_of_four_nodes_are_told_apart_as_by_brute_force():
    """Two labels, and up to two sources per node, which may be one and the same."""
    rng = np.random.default_rng(0)
    reads = [
        [list(pick) for size in range(3) for pick in itertools.combinations_with_replacement(range(node), size)]
        for node in range(4)
    ]
    graphs = [
        relabelled((list(labels), list(sources)), rng)
        for sources in itertools.product(*reads)
        for labels in itertools.product("ab", repeat=4)
    ]
    assert len(graphs) == 1 * 3 * 6 * 10 * 16
    assert_same_classes(graphs)


@pytest.mark.parametrize(("nodes", "labels", "draws"), [(5, "a", 300), (5, "ab", 300), (6, "a", 150)])
def test_random_graphs_are_told_apart_as_by_brute_force(nodes, labels, draws):
    rng = np.random.default_rng(nodes)
    graphs = [small_graph(nodes, labels, rng) for _ in range(draws)]
    assert_same_classes(graphs + [relabelled(graph, rng) for graph in graphs])


def ring_graph(*rings: int) -> Labelled:
    """Rings of nodes that read the image, with a sum for every two neighbours, and a last node that reads all sums."""
    labels, sources, sums = ["image"], [[]], []
    for size in rings:
        first = len(labels)
        labels += ["conv"] * size + ["sum"] * size
        sources += [[0]] * size + [[first + k, first + (k + 1) % size] for k in range(size)]
        sums += range(first + size, first + 2 * size)
    return [*labels, "output"], [*sources, sums]


def chains(count: int, length: int) -> Labelled:
    """As many equal chains from the image, whose ends are added pair by pair."""
    labels, sources, ends = ["image"], [[]], []
    for _ in range(count):
        for step in range(length):
            sources.append([len(labels) - 1 if step else 0])
            labels.append(f"conv{step}")
        ends.append(len(labels) - 1)
    while len(ends) > 1:
        sources.append([ends.pop(0), ends.pop(0)])
        labels.append("sum")
        ends.append(len(labels) - 1)
    return labels, sources


@pytest.mark.parametrize(
    ("graph", "at_most"),
    [
        (chains(12, 3), 150),
        (chains(16, 2), 400),
        (([*"i" * 17, "o"], [[], *([[0]] * 16), list(range(1, 17))]), 2000),
        (ring_graph(3, 3, 3, 3), 2000),
        (([str(k) for k in range(30)], [[], *([k] for k in range(29))]), 1),  # nothing to choose
    ],
    ids=["12 chains", "16 chains", "16 twins", "4 triangles", "a chain"],
)
def test_symmetry_does_not_multiply_the_work(graph, at_most, monkeypatch):
    """Symmetric nodes could be told apart in 16! orders; mirror images are looked at once."""
    calls, refine = [], _Graph._refine

    def counted(self: _Graph, colours: tuple[int, ...]) -> tuple[int, ...]:
        calls.append(colours)
        assert len(calls) <= at_most
        return refine(self, colours)

    monkeypatch.setattr(_Graph, "_refine", counted)
    canonical_order(*graph)
    assert calls


def doubled(graph: Labelled) -> Labelled:
    """Two copies that share their first node, and a node that reads the last one of each."""
    labels, sources = graph
    shift = len(labels) - 1
    copied = [[source + shift if source else 0 for source in read] for read in sources[1:]]
    return [*labels, *labels[1:], "sum"], [*sources, *copied, [shift, 2 * shift]]


@st.composite
def symmetric_graphs(draw) -> Labelled:
    """Up to 25 nodes after up to three doublings, and twins: nodes that read the same."""
    rng = np.random.default_rng(draw(seeds))
    times = draw(st.integers(0, 3))
    labels, sources = small_graph(draw(st.integers(2, (14, 7, 4, 2)[times])), "ab", rng)
    for _ in range(times):
        labels, sources = doubled((labels, sources))
    for _ in range(draw(st.integers(0, 25 - len(labels)))):
        twin = int(rng.integers(len(labels)))
        labels, sources = [*labels, labels[twin]], [*sources, sources[twin]]
    return labels, sources


@settings(max_examples=150)
@given(symmetric_graphs(), seeds)
def test_a_relabelled_graph_has_the_same_form(graph, seed):
    assert canonical_form(relabelled(graph, np.random.default_rng(seed))) == canonical_form(graph)


def test_rings_that_neighbours_cannot_tell_apart_have_forms_of_their_own():
    """Every node of two triangles sees what every node of a hexagon sees: splitting colours by neighbours is no use."""
    rng = np.random.default_rng(0)
    forms = set()
    for rings in ((3, 3), (6,), (4, 4), (3, 5), (8,), (3, 3, 6), (6, 3, 3), (4, 4, 4), (12,)):
        graph = ring_graph(*rings)
        form = canonical_form(graph)
        for _ in range(3):
            assert canonical_form(relabelled(graph, rng)) == form
        forms.add(form)
    assert len(forms) == 8  # (3, 3, 6) and (6, 3, 3) are one


# -- genotypes as data -------------------------------------------------------------------------------------------------


def used_genes(architecture: GridArchitecture) -> dict[int, tuple[int, ...]]:
    """1 + the index of every node with a path to the output → the sources that it reads."""
    found: dict[int, tuple[int, ...]] = {}

    def visit(node: int) -> None:
        if node:
            genes = architecture.nodes[node - 1]
            found[node] = genes.sources if genes.function in ("sum", "concat") else genes.sources[:1]
            for source in found[node]:
                visit(source)

    visit(architecture.output)
    return found


def isomorphic(first: GridArchitecture, second: GridArchitecture) -> bool:
    """Brute force: whether some assignment of active nodes to active nodes keeps functions, circuits and sources."""
    mine, theirs = used_genes(first), used_genes(second)

    def look(architecture: GridArchitecture, node: int) -> tuple:
        genes = architecture.nodes[node - 1]
        multiplies = genes.function.startswith(("conv", "res"))
        return genes.function, multiplies and genes.multiplier, node == architecture.output

    def same(renamed: dict[int, int]) -> bool:
        return all(
            look(first, node) == look(second, renamed[node])
            and sorted(renamed[source] for source in mine[node]) == sorted(theirs[renamed[node]])
            for node in mine
        )

    return (
        first.multiplier == second.multiplier
        and len(mine) == len(theirs)
        and any(same({0: 0, **dict(zip(mine, order))}) for order in itertools.permutations(theirs))
    )


def few_kinds(rng: np.random.Generator, rows: int, columns: int) -> GridArchitecture:
    """A genotype of few functions and circuits, so that many are equal."""

    def source(index: int) -> int:
        return int(rng.integers(1 + index // rows * rows))

    functions = ("conv_3x3_16", "max_pool", "sum", "sum", "sum", "concat")
    nodes = tuple(
        GridNode(str(rng.choice(functions)), str(rng.choice(NAMES[:2])), (source(k), source(k)))
        for k in range(rows * columns)
    )
    return architecture_of(*nodes, rows=rows, output=1 + int(rng.integers(rows * columns)))


def with_one_gene_changed(architecture: GridArchitecture, other: GridArchitecture, at: int) -> GridArchitecture:
    """``architecture`` with gene number ``at`` of an ``other`` one."""
    index, which = divmod(at, 4)
    if index == len(architecture.nodes):
        fields = ("output", "multiplier")[which % 2]
        return replace(architecture, **{fields: getattr(other, fields)})
    old, new = architecture.nodes[index], other.nodes[index]
    node = (
        replace(old, function=new.function),
        replace(old, multiplier=new.multiplier),
        replace(old, sources=(new.sources[0], old.sources[1])),
        replace(old, sources=(old.sources[0], new.sources[1])),
    )[which]
    return replace(architecture, nodes=(*architecture.nodes[:index], node, *architecture.nodes[index + 1 :]))


def with_shuffled_rows(architecture: GridArchitecture, rng: np.random.Generator) -> GridArchitecture:
    """The same network with the nodes of every column in another order."""
    rows, columns = architecture.rows, architecture.columns
    goes_to = np.concatenate([column * rows + rng.permutation(rows) for column in range(columns)]).tolist()
    moved = [0, *(1 + at for at in goes_to)]
    nodes = list(architecture.nodes)
    for index, node in enumerate(architecture.nodes):
        nodes[goes_to[index]] = replace(node, sources=(moved[node.sources[0]], moved[node.sources[1]]))
    return replace(architecture, nodes=tuple(nodes), output=moved[architecture.output])


def test_keys_are_equal_exactly_when_the_networks_are():
    """Neighbours by one gene, and strangers, against brute force; both outcomes are frequent."""
    rng, equal, unequal = np.random.default_rng(0), 0, 0
    for size in [(2, 3), (3, 2)] * 150:
        architecture, other = few_kinds(rng, *size), few_kinds(rng, *size)
        for second in (with_one_gene_changed(architecture, other, int(rng.integers(28))), other):
            same = isomorphic(architecture, second)
            assert (architecture.key == with_shuffled_rows(second, rng).key) == same
            equal, unequal = equal + same, unequal + (not same)
    assert equal > 100 and unequal > 100


@given(seeds, st.sampled_from([(2, 3, 2), (3, 8, 4), (5, 30, 10)]))
def test_the_active_nodes_are_those_that_the_output_reads(seed, grid):
    architecture = GridSpace(LIBRARY, *grid).sample(np.random.default_rng(seed))
    used, active = used_genes(architecture), architecture.active
    assert sorted(node.position + 1 for node in active) == sorted(used)
    assert active[-1].position + 1 == architecture.output
    place = {0: 0} | {node.position + 1: 1 + number for number, node in enumerate(active)}
    for number, node in enumerate(active):
        genes = architecture.nodes[node.position]
        assert node.function == genes.function
        assert node.multiplier == (genes.multiplier if genes.function in BLOCKS else None)
        assert list(node.sources) == sorted(place[source] for source in used[node.position + 1])
        assert all(source <= number for source in node.sources)


@given(seeds, st.sampled_from([(2, 3, 2), (3, 8, 4), (4, 10, 2)]))
def test_no_inactive_gene_touches_the_key(seed, grid):
    rng, space = np.random.default_rng(seed), GridSpace(LIBRARY, *grid)
    architecture, other = space.sample(rng), space.sample(rng)
    used = used_genes(architecture)
    nodes = []
    for index, (old, new) in enumerate(zip(architecture.nodes, other.nodes)):
        if index + 1 not in used:
            nodes.append(new)
        elif old.function in ("sum", "concat"):
            nodes.append(GridNode(old.function, new.multiplier, old.sources[::-1]))
        elif old.function in ("max_pool", "avg_pool"):
            nodes.append(GridNode(old.function, new.multiplier, (old.sources[0], new.sources[1])))
        else:
            nodes.append(GridNode(old.function, old.multiplier, (old.sources[0], new.sources[1])))
    same = replace(architecture, nodes=tuple(nodes))
    assert same.key == architecture.key
    assert [node.function for node in same.active] == [node.function for node in architecture.active]


@given(seeds, st.booleans(), st.sampled_from([(1, 5, 5), (2, 3, 2), (3, 8, 4)]))
def test_the_place_on_the_grid_does_not_touch_the_key(seed, few, grid):
    """The active nodes among others of a larger grid, in any order in which sources come first."""
    rng = np.random.default_rng(seed)
    architecture = few_kinds(rng, *grid[:2]) if few else GridSpace(LIBRARY, *grid).sample(rng)
    used = used_genes(architecture)
    rows, columns = int(rng.integers(1, 4)), len(used) + int(rng.integers(4))
    larger = GridSpace(LIBRARY, rows, columns, columns).sample(rng)
    waiting, moved, nodes = set(used), {0: 0}, list(larger.nodes)
    for column in sorted(rng.choice(columns, len(used), replace=False).tolist()):
        node = int(rng.choice([n for n in sorted(waiting) if not waiting & set(used[n])]))
        waiting.remove(node)
        at = column * rows + int(rng.integers(rows))
        genes = architecture.nodes[node - 1]
        sources = [moved[source] for source in used[node]]
        nodes[at] = GridNode(genes.function, genes.multiplier, (sources[0], sources[-1]))
        moved[node] = 1 + at
    placed = replace(larger, nodes=tuple(nodes), output=moved[architecture.output], multiplier=architecture.multiplier)
    assert placed.key == architecture.key
    assert [node.function for node in placed.active] == [node.function for node in architecture.active]
    assert [node.sources for node in placed.active] == [node.sources for node in architecture.active]


@given(seeds, st.booleans())
def test_the_order_of_rows_does_not_touch_the_key(seed, few):
    rng = np.random.default_rng(seed)
    architecture = few_kinds(rng, 4, 4) if few else GridSpace(LIBRARY, 4, 6, 3).sample(rng)
    assert with_shuffled_rows(architecture, rng).key == architecture.key


def test_the_key_is_the_digest_of_the_active_nodes_in_order():
    """Where labels tell all nodes apart, the order is theirs by the alphabet, sources first; typed by hand."""
    architecture = architecture_of(
        gene("sum", 0),
        gene("res_3x3_16", 0, multiplier=CHEAP),
        gene("concat", 1, 0),
        gene("conv_3x3_16", 0, multiplier=CHEAP),
        gene("max_pool", 0, multiplier=CHEAP),
        gene("conv_3x3_16", 0, multiplier=EXACT),
        gene("sum", 4, 6),
        gene("concat", 5, 2),
        gene("sum", 7, 8),
        gene("sum", 9, 0),
    )
    graph = [
        ["conv_3x3_16", EXACT, [0]],
        ["conv_3x3_16", CHEAP, [0]],
        ["max_pool", None, [0]],
        ["res_3x3_16", CHEAP, [0]],
        ["concat", None, [3, 4]],
        ["sum", None, [1, 2]],
        ["sum", None, [5, 6]],
        ["sum", None, [0, 7]],
    ]
    assert [[node.function, node.multiplier, list(node.sources)] for node in architecture.active] == graph
    assert architecture.key == hashlib.sha256(json.dumps(["grid", EXACT, graph]).encode()).hexdigest()


def a_residual_merge() -> GridArchitecture:
    """A convolution and a pooled residual block, added. Node 2 leads nowhere."""
    return architecture_of(
        gene("conv_3x3_16", 0),
        gene("concat", 0, 1),
        gene("res_3x3_32", 0),
        gene("max_pool", 3),
        gene("sum", 1, 4),
    )


def test_every_active_gene_touches_the_key():
    base = a_residual_merge()
    changed = [
        replace(base, multiplier=CHEAP),
        replace(base, output=4),
        *(
            replace(base, nodes=(*base.nodes[:at], node, *base.nodes[at + 1 :]))
            for at, node in (
                (0, gene("conv_5x5_16", 0)),
                (0, gene("conv_3x3_32", 0)),
                (0, gene("res_3x3_16", 0)),
                (0, gene("conv_3x3_16", 0, multiplier=CHEAP)),
                (2, gene("res_3x3_32", 1)),
                (2, gene("res_3x3_32", 0, multiplier=CHEAP)),
                (3, gene("avg_pool", 3)),
                (3, gene("max_pool", 1)),
                (4, gene("concat", 1, 4)),
                (4, gene("sum", 0, 4)),
                (4, gene("sum", 1, 3)),
                (4, gene("sum", 1, 2)),
                (4, gene("sum", 4, 4)),
            )
        ),
    ]
    assert len({base.key, *(architecture.key for architecture in changed)}) == 1 + len(changed)


def test_two_equal_nodes_are_not_one_node_twice():
    """sum(a, a′) has two sets of weights, sum(a, a) one; which of the two equal nodes comes first is no difference."""
    a, b = gene("conv_3x3_16", 0), gene("conv_3x3_16", 0)
    two, one = architecture_of(a, b, gene("sum", 1, 2)), architecture_of(a, b, gene("sum", 1, 1))
    assert len(two.active) == 3 and len(one.active) == 2
    assert two.key != one.key
    assert one.key == architecture_of(a, b, gene("sum", 2, 2)).key
    assert two.key == architecture_of(a, b, gene("sum", 2, 1)).key


def test_a_line_for_people_counts_functions_and_multipliers():
    architecture = architecture_of(
        gene("conv_3x3_16", 0, multiplier=CHEAP),
        gene("res_5x5_64", 1),
        gene("conv_3x3_16", 2, multiplier=CHEAP),
        gene("avg_pool", 3, multiplier=EXACT),
        gene("max_pool", 3),
    )
    line = architecture.short()
    assert line == f"{architecture.key[:8]}  2·conv_3x3_16 1·max_pool 1·res_5x5_64 | 2·1L2D 1·1KVL"
    pooled = architecture_of(gene("avg_pool", 0))
    assert pooled.short() == f"{pooled.key[:8]}  1·avg_pool"


@given(seeds, st.sampled_from(GRIDS), st.sampled_from(["edge", "network"]))
def test_json_is_lossless(seed, grid, choice):
    space = GridSpace(LIBRARY, *grid, choice=choice)
    architecture = space.sample(np.random.default_rng(seed))
    back = space.from_json(json.loads(json.dumps(architecture.to_json())))
    assert back == architecture and back.key == architecture.key and hash(back) == hash(architecture)
    assert back.to_json() == architecture.to_json()


def a_form() -> dict:
    """The JSON form of a genotype of 2×3 nodes that read the column before theirs only, typed by hand."""
    return {
        "space": "grid",
        "rows": 2,
        "columns": 3,
        "levels_back": 1,
        "nodes": [
            ["conv_3x3_16", "mul8s_1KV8", 0, 0],
            ["max_pool", "mul8s_1KVL", 0, 0],
            ["sum", "mul8s_1KV8", 1, 2],
            ["res_5x5_128", "mul8s_1L2D", 2, 1],
            ["concat", "mul8s_1KV8", 4, 3],
            ["avg_pool", "mul8s_1KV8", 3, 3],
        ],
        "output": 5,
        "multiplier": "mul8s_1KVL",
    }


def test_a_form_typed_by_hand_is_read_as_it_stands():
    architecture = GridArchitecture.from_json(a_form())
    assert architecture.to_json() == a_form()
    assert architecture.nodes[3] == GridNode("res_5x5_128", CHEAP, (2, 1))
    assert (architecture.rows, architecture.columns, architecture.levels_back) == (2, 3, 1)
    assert (architecture.output, architecture.multiplier) == (5, ROUGH)
    assert sorted(node.position for node in architecture.active) == [0, 1, 2, 3, 4]


def put(form: object, path: tuple, value: object) -> None:
    for step in path[:-1]:
        form = form[step]
    form[path[-1]] = value


WRONG = {
    "another space": (("space",), "cells"),
    "a space that is a list": (("space",), ["grid"]),
    "rows that are a fraction": (("rows",), 2.0),
    "rows that are true": (("rows",), True),
    "rows that are text": (("rows",), "2"),
    "no rows": (("rows",), 0),
    "one row more": (("rows",), 3),
    "columns that are a fraction": (("columns",), 3.0),
    "columns that are null": (("columns",), None),
    "negative columns": (("columns",), -3),
    "no levels back": (("levels_back",), 0),
    "too many levels back": (("levels_back",), 4),
    "levels back that are true": (("levels_back",), True),
    "levels back that are a fraction": (("levels_back",), 1.0),
    "no nodes": (("nodes",), []),
    "a node too few": (("nodes",), a_form()["nodes"][:5]),
    "a node too many": (("nodes",), [*a_form()["nodes"], ["sum", "mul8s_1KV8", 5, 6]]),
    "nodes that are null": (("nodes",), None),
    "nodes that are a number": (("nodes",), 6),
    "nodes that are text": (("nodes",), "conv"),
    "nodes that are an object": (("nodes",), {"conv": 1}),
    "a node that is a number": (("nodes", 0), 7),
    "a node that is null": (("nodes", 0), None),
    "a node that is text": (("nodes", 0), "conv"),
    "a node of one source": (("nodes", 0), ["conv_3x3_16", "mul8s_1KV8", 0]),
    "a node of three sources": (("nodes", 0), ["conv_3x3_16", "mul8s_1KV8", 0, 0, 0]),
    "an unknown function": (("nodes", 0, 0), "conv_3x3_17"),
    "a function that is null": (("nodes", 0, 0), None),
    "a function that is a number": (("nodes", 0, 0), 3),
    "a function that is a list": (("nodes", 0, 0), ["sum"]),
    "a node's multiplier that is null": (("nodes", 0, 1), None),
    "an inactive node's multiplier that is a number": (("nodes", 5, 1), 8),
    "a node's multiplier that is a list": (("nodes", 0, 1), ["mul8s_1KV8"]),
    "a source two columns before": (("nodes", 4, 2), 2),
    "the image two columns before": (("nodes", 2, 2), 0),
    "a source in the same column": (("nodes", 2, 2), 4),
    "a node that reads itself": (("nodes", 2, 3), 3),
    "a source behind": (("nodes", 2, 3), 5),
    "a source beyond the grid": (("nodes", 4, 3), 7),
    "a negative source": (("nodes", 0, 2), -1),
    "a source that is text": (("nodes", 0, 2), "0"),
    "a source that is a fraction": (("nodes", 2, 2), 1.0),
    "a source that is true": (("nodes", 2, 2), True),
    "a source that is false": (("nodes", 0, 3), False),
    "a source that is null": (("nodes", 0, 3), None),
    "an inactive node's source out of reach": (("nodes", 5, 3), 1),
    "an output that is the image": (("output",), 0),
    "an output too far from the end": (("output",), 4),
    "an output beyond the grid": (("output",), 7),
    "a negative output": (("output",), -1),
    "an output that is a fraction": (("output",), 5.0),
    "an output that is text": (("output",), "5"),
    "an output that is null": (("output",), None),
    "an output that is a list": (("output",), [5]),
    "the classifier's multiplier that is null": (("multiplier",), None),
    "the classifier's multiplier that is a number": (("multiplier",), 8),
    "the classifier's multiplier that is an object": (("multiplier",), {"name": "mul8s_1KV8"}),
}


@pytest.mark.parametrize(("path", "value"), WRONG.values(), ids=WRONG)
def test_a_form_with_one_thing_wrong_is_refused(path, value):
    form = a_form()
    put(form, path, copy.deepcopy(value))
    with pytest.raises(InputError):
        GridArchitecture.from_json(form)


@pytest.mark.parametrize("output", [True, 1.0, 2])
def test_the_only_node_is_the_only_output(output):
    assert GridArchitecture(1, 1, 1, (gene("sum", 0),), 1, EXACT).output == 1
    with pytest.raises(InputError, match="output"):
        GridArchitecture(1, 1, 1, (gene("sum", 0),), output, EXACT)


def test_a_grid_of_another_form_with_as_many_nodes_is_refused():
    with pytest.raises(InputError, match="node 2 cannot read"):
        GridArchitecture.from_json({**a_form(), "rows": 3, "columns": 2})


@pytest.mark.parametrize("data", [None, 3, "grid", [], {}, [a_form()], json.dumps(a_form())], ids=lambda d: str(d)[:9])
def test_a_form_of_another_type_is_refused(data):
    with pytest.raises(InputError, match="not a grid architecture"):
        GridArchitecture.from_json(data)


@pytest.mark.parametrize("name", a_form())
def test_a_form_with_something_missing_is_refused(name):
    form = a_form()
    del form[name]
    with pytest.raises(InputError, match=f"not a grid architecture: KeyError '{name}'"):
        GridArchitecture.from_json(form)


def test_refusals_say_what_is_meant():
    for path, value, message in (
        (("nodes", 0, 0), "conv_3x3_46", "unknown function 'conv_3x3_46'; did you mean conv_3x3_"),
        (("nodes", 1, 0), "maxpool", "did you mean max_pool"),
        (("space",), "cells", "of 'cells'"),
        (("nodes", 4, 2), 2, r"node 4 cannot read \(2, 3\); its sources are 3 to 4"),
        (("nodes", 0, 3), 1, r"node 0 cannot read \(0, 1\); its sources are 0 to 0"),
        (("nodes", 3, 1), None, "node 3 needs the name"),
        (("output",), 4, "the output cannot be 4; it is one of 5 to 6"),
        (("nodes",), [], "2×3 needs as many nodes, not 0"),
        (("rows",), 0, "at least one row"),
        (("levels_back",), 4, r"number of columns \(3\), not 4"),
        (("multiplier",), 1, "the classifier"),
    ):
        form = a_form()
        put(form, path, value)
        with pytest.raises(InputError, match=message) as caught:
            GridArchitecture.from_json(form)
        assert "InputError" not in str(caught.value)


def accepted(rows: int, columns: int, levels_back: int, nodes: list[GridNode], output: int) -> bool:
    try:
        GridArchitecture(rows, columns, levels_back, tuple(nodes), output, EXACT)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_nodes_read_the_columns_before_theirs_as_far_back_as_they_may(rows, columns):
    """The image counts as column −1, so that node 0 … are in column 0; a reader behind the grid is the output."""
    count = rows * columns
    column_of = {0: -1} | {1 + index: index // rows for index in range(count)}
    for levels_back in range(1, columns + 1):
        grid = rows, columns, levels_back
        farthest = [max(-1, index // rows - levels_back) for index in range(count)]
        valid = [gene("sum", min(s for s, column in column_of.items() if column == far)) for far in farthest]
        for index, source in itertools.product(range(count), range(-1, count + 2)):
            allowed = source in column_of and index // rows - levels_back <= column_of[source] < index // rows
            for sources in ((source, valid[index].sources[1]), (valid[index].sources[0], source)):
                nodes = [*valid[:index], replace(valid[index], sources=sources), *valid[index + 1 :]]
                assert accepted(*grid, nodes, output=count) == allowed
        for output in range(-1, count + 2):
            allowed = output > 0 and output in column_of and column_of[output] >= columns - levels_back
            assert accepted(*grid, valid, output) == allowed


# -- drawing and mutating ----------------------------------------------------------------------------------------------


def multipliers_of(architecture: GridArchitecture) -> set[str]:
    return {architecture.multiplier, *(node.multiplier for node in architecture.nodes)}


def random_walk(space: GridSpace, rng: np.random.Generator, samples: int, steps: int) -> list[GridArchitecture]:
    """Samples, each with a chain of mutants."""
    found = []
    for _ in range(samples):
        found.append(space.sample(rng))
        for _ in range(steps):
            found.append(space.mutate(found[-1], rng))
    return found


@every_grid
@both_choices
def test_the_same_seed_draws_the_same(grid, choice):
    def draw() -> list[GridArchitecture]:
        rng, space = np.random.default_rng(3), GridSpace(LIBRARY, *grid, choice=choice)
        walk = random_walk(space, rng, 4, 3)
        return [*walk, space.drift(walk[-1], rng)]

    drawn = draw()
    assert drawn == draw() and len({architecture.key for architecture in drawn}) > 5
    for architecture in drawn:
        assert multipliers_of(architecture) <= set(NAMES)
        assert (architecture.rows, architecture.columns, architecture.levels_back) == grid
        if choice == "network":
            assert len(multipliers_of(architecture)) == 1


def test_one_multiplier_for_the_network_can_be_any():
    space, rng = GridSpace(LIBRARY, 1, 3, 3, choice="network"), np.random.default_rng(0)
    walk = random_walk(space, rng, 20, 0)
    assert set().union(*map(multipliers_of, walk)) == set(NAMES)
    mutants = [space.mutate(walk[0], rng) for _ in range(200)]
    assert set().union(*map(multipliers_of, mutants)) == set(NAMES)
    assert all(len(multipliers_of(mutant)) == 1 for mutant in mutants)


def assert_uniform(counts: dict, outcomes: int, message: str) -> None:
    """As many outcomes as there should be, each within 4.5 standard deviations of its mean."""
    trials = sum(counts.values())
    mean, deviation = trials / outcomes, math.sqrt(trials * (1 / outcomes) * (1 - 1 / outcomes))
    assert len(counts) == outcomes, message
    assert all(abs(count - mean) < 4.5 * deviation for count in counts.values()), message


def tally(values: list) -> dict:
    return {value: values.count(value) for value in set(values)}


@both_choices
def test_samples_are_uniform_in_every_gene(choice):
    space, rng = GridSpace(LIBRARY, 2, 3, 2, choice=choice), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(2000)]
    sources = [(0,), (0,), (0, 1, 2), (0, 1, 2), (1, 2, 3, 4), (1, 2, 3, 4)]
    for index in range(6):
        nodes = [architecture.nodes[index] for architecture in drawn]
        assert_uniform(tally([node.function for node in nodes]), len(FUNCTIONS), f"functions of node {index}")
        assert_uniform(tally([node.multiplier for node in nodes]), 3, f"circuits of node {index}")
        pairs = tally([node.sources for node in nodes])
        assert set(pairs) == set(itertools.product(sources[index], repeat=2))
        if len(pairs) > 1:
            assert_uniform(pairs, len(sources[index]) ** 2, f"sources of node {index}")
    outputs = tally([architecture.output for architecture in drawn])
    assert set(outputs) == {3, 4, 5, 6}
    assert_uniform(outputs, 4, "outputs")
    assert_uniform(tally([architecture.multiplier for architecture in drawn]), 3, "circuits of the classifier")
    together = tally([(a.multiplier, a.nodes[0].multiplier, a.nodes[1].multiplier) for a in drawn])
    assert_uniform(together, 27 if choice == "edge" else 3, "circuits of the classifier and two nodes")


KINDS = ("function", "circuit", "first", "second")  # of a node's genes


def genes_of(architecture: GridArchitecture) -> dict[tuple, object]:
    """Every gene by where it is and what it says: (index of the node, name)."""
    genes: dict[tuple, object] = {(None, "output"): architecture.output, (None, "classifier"): architecture.multiplier}
    for index, node in enumerate(architecture.nodes):
        for name, value in zip(KINDS, (node.function, node.multiplier, *node.sources)):
            genes[index, name] = value
    return genes


def changed_genes(first: GridArchitecture, second: GridArchitecture) -> list[tuple]:
    before, after = genes_of(first), genes_of(second)
    return [at for at in before if before[at] != after[at]]


def idle_genes(architecture: GridArchitecture) -> set[tuple]:
    """The genes that do not matter."""
    used = used_genes(architecture)
    idle = set()
    for index, node in enumerate(architecture.nodes):
        if index + 1 not in used:
            idle |= {(index, name) for name in KINDS}
        else:
            if not node.function.startswith(("conv", "res")):
                idle.add((index, "circuit"))
            if node.function not in ("sum", "concat"):
                idle.add((index, "second"))
    return idle


@every_grid
@both_choices
def test_mutants_are_other_networks(grid, choice):
    space, rng = GridSpace(LIBRARY, *grid, choice=choice), np.random.default_rng(11)
    for _ in range(3):
        architecture = space.sample(rng)
        for _ in range(15):
            child = space.mutate(architecture, rng)
            assert child.key != architecture.key
            assert set(changed_genes(architecture, child)) - idle_genes(architecture)
            assert multipliers_of(child) <= set(NAMES)
            assert choice == "edge" or len(multipliers_of(child)) == 1
            architecture = child


def test_mutation_goes_on_until_the_network_has_changed(monkeypatch):
    """Each round starts where the one before ended, all before the last leave the key alone, and the last is taken."""
    space, rng, rounds = GridSpace(LIBRARY, 2, 4, 2), np.random.default_rng(0), []
    redraw = space._redraw

    def recorded(architecture: GridArchitecture, rng: np.random.Generator, active: bool) -> GridArchitecture:
        rounds.append((architecture, redraw(architecture, rng, active)))
        return rounds[-1][1]

    monkeypatch.setattr(space, "_redraw", recorded)
    most = 0
    for _ in range(60):
        rounds.clear()
        parent = space.sample(rng)
        child = space.mutate(parent, rng)
        assert rounds[0][0] is parent and rounds[-1][1] is child
        assert all(after is before for (_, after), (before, _) in itertools.pairwise(rounds))
        assert all(after.key == parent.key for _, after in rounds[:-1])
        most = max(most, len(rounds))
    assert most > 5


def test_everything_mutates():
    space, rng = GridSpace(LIBRARY, 2, 4, 2), np.random.default_rng(2)
    architecture, seen = space.sample(rng), set()
    for _ in range(600):
        seen |= set(changed_genes(architecture, space.mutate(architecture, rng)))
    fixed = {(index, name) for index in (0, 1) for name in ("first", "second")}  # there is the image only
    assert seen == set(genes_of(architecture)) - fixed


def test_active_genes_mutate_at_their_rate():
    """All of a chain's nodes are active, so that a round seldom changes nothing, and rarely needs another."""
    space, rng = GridSpace(LIBRARY, 1, 40, 1), np.random.default_rng(5)
    functions, parents = 0, 400
    for _ in range(parents):
        parent = space.sample(rng)
        functions += sum(name == "function" for _, name in changed_genes(parent, space.mutate(parent, rng)))
    rate = functions / (40 * parents) / (1 - 1 / len(FUNCTIONS))
    assert MUTATION_RATE * 0.9 < rate < MUTATION_RATE * 1.2
    assert MUTATION_RATE == 0.05


@every_grid
@both_choices
def test_drift_changes_idle_genes_only(grid, choice):
    space, rng = GridSpace(LIBRARY, *grid, choice=choice), np.random.default_rng(1)
    for _ in range(20):
        architecture = space.sample(rng)
        for _ in range(4):
            drifted = space.drift(architecture, rng)
            assert drifted.key == architecture.key
            assert set(changed_genes(architecture, drifted)) <= idle_genes(architecture)
            assert choice == "edge" or len(multipliers_of(drifted)) == 1
            architecture = drifted


def test_idle_genes_drift_at_their_rate():
    """Of genes that are idle, active nodes' included: within 4.5 standard deviations, by kind of gene."""
    space, rng = GridSpace(LIBRARY, 3, 12, 12), np.random.default_rng(4)
    expected, found, at_active = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0), set()
    for _ in range(250):
        architecture = space.sample(rng)
        used = used_genes(architecture)
        options = {"function": len(FUNCTIONS), "circuit": len(NAMES)}
        for index, name in idle_genes(architecture):
            expected[name] += MUTATION_RATE * (1 - 1 / options.get(name, 1 + index // 3 * 3))
        for index, name in changed_genes(architecture, space.drift(architecture, rng)):
            found[name] += 1
            if index + 1 in used:
                at_active.add(name)
    for name in KINDS:
        assert abs(found[name] - expected[name]) < 4.5 * math.sqrt(expected[name])
    assert at_active == {"circuit", "second"}


def test_idle_multipliers_of_a_tied_network_do_not_drift():
    space, rng = GridSpace(LIBRARY, 3, 8, 4, choice="network"), np.random.default_rng(4)
    architecture = space.sample(rng)
    names = {name for _ in range(50) for _, name in changed_genes(architecture, space.drift(architecture, rng))}
    assert names == {"function", "first", "second"}


def test_without_mutation_there_is_no_neighbour(monkeypatch):
    monkeypatch.setattr(space_module, "MUTATION_RATE", 0.0)
    space, rng = GridSpace(LIBRARY, 1, 1, 1), np.random.default_rng(0)
    with pytest.raises(InputError, match="no neighbour"):
        space.mutate(space.sample(rng), rng)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rows": 0}, "at least one row"),
        ({"columns": 0}, "at least one row and one column"),
        ({"rows": -1}, "not -1×30"),
        ({"rows": 2.0}, "whole numbers"),
        ({"levels_back": 0}, "levels-back"),
        ({"columns": 5, "levels_back": 6}, r"number of columns \(5\), not 6"),
        ({"choice": "cell"}, "not per cell"),
        ({"scope": "separable"}, "not separable"),
    ],
)
def test_an_impossible_space_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        GridSpace(LIBRARY, **arguments)


@every_grid
@both_choices
def test_the_reference_is_valid_and_fixed(grid, choice):
    """Blocks in columns 0, 2 and 4 of a chain through the first row, pooling in the others, on the hungriest circuit."""
    space = GridSpace(LIBRARY, *grid, choice=choice)
    reference = space.reference()
    assert reference == GridSpace(LIBRARY[::-1], *grid).reference()
    assert space.from_json(reference.to_json()) == reference
    columns = grid[1]
    functions = ["res_5x5_128" if column in (0, 2, 4) else "max_pool" for column in range(columns)]
    assert [node.function for node in reference.active] == functions
    assert [node.sources for node in reference.active] == [(column,) for column in range(columns)]
    assert [node.position for node in reference.active] == [column * grid[0] for column in range(columns)]
    assert multipliers_of(reference) == {max(LIBRARY, key=lambda m: m.power_mw).name}
    rows = space.costs(reference, replace(SHAPE, input_shape=(3, 32, 32)))
    assert energy_model("horowitz45").network(rows, "int8").total > 0


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "samples", "steps"),
    [((1, 1, 1), 20, 9), ((1, 5, 5), 20, 9), *(((3, 8, back), 3, 9) for back in range(1, 9)), ((5, 30, 10), 3, 9)],
    ids=str,
)
def test_every_genotype_has_costs(grid, samples, steps):
    space, rng, model = GridSpace(LIBRARY, *grid), np.random.default_rng(7), energy_model("horowitz45")
    sizes = itertools.cycle([(6, 6), (32, 32), (5, 7), (1, 1), (2, 9)])
    for architecture in random_walk(space, rng, samples, steps):
        size = next(sizes)
        rows = space.costs(architecture, NetworkShape(int(rng.choice([1, 2, 3, 8])), 1, 10, (3, *size)))
        assert all(number >= 0 for row in rows for number in (row.macs, row.adds, row.params, row.activations))
        energies = [model.network(rows, arithmetic).total for arithmetic in ARITHMETICS]
        assert all(0 < energy < math.inf for energy in energies)
        assert energies[0] > energies[1] and total_macs(rows) > 0 and total_params(rows) > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("images", "draws"),
    [((4, 1, 6, 6), 30), ((2, 3, 5, 7), 30), ((2, 3, 1, 4), 12), ((2, 3, 32, 32), 1)],
    ids=["6x6", "5x7", "1x4", "32x32"],
)
def test_every_genotype_computes(channels, images, draws):
    rng = np.random.default_rng(channels)
    shape = NetworkShape(channels, 1, 5, tuple(images[1:]))
    for grid in ((1, 1, 1), (1, 5, 5), (3, 8, 2)):
        space = GridSpace(LIBRARY, *grid)
        for architecture in random_walk(space, rng, -(-draws // 6), 1):
            network = space.build(architecture, shape, "fp32")
            for net in (network, network.eval()):
                logits = net(torch.randn(images))
                assert logits.shape == (images[0], 5) and torch.isfinite(logits).all()


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_every_genotype_learns_in_every_arithmetic(arithmetic):
    space, rng = GridSpace(LIBRARY, 2, 4, 2), np.random.default_rng(0)
    for architecture in random_walk(space, rng, 3, 3):
        network = space.build(architecture, NetworkShape(2, 1, 5, (1, 6, 6)), arithmetic)
        nn.functional.cross_entropy(network(torch.randn(4, 1, 6, 6)), torch.tensor([0, 1, 2, 3])).backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


WIDE = NetworkShape(channels=4, cells=1, classes=5, input_shape=(3, 8, 6))  # widths 4, 8, 16, 32


def costs_of(architecture: GridArchitecture, shape: NetworkShape = WIDE) -> list[tuple]:
    """(kind, MACs, additions, parameters) of every row."""
    space = GridSpace(LIBRARY, architecture.rows, architecture.columns, architecture.levels_back)
    return [(row.kind, row.macs, row.adds, row.params) for row in space.costs(architecture, shape)]


def head(channels: int, pixels: int) -> list[tuple]:
    """Global average pooling and the classifier for five classes."""
    return [
        ("pool", 0, channels * (pixels - 1), 0),
        ("linear", 5 * channels, 5 * channels + 5, 5 * channels + 5),
    ]


def conv(inputs: int, outputs: int, kernel: int, pixels: int) -> list[tuple]:
    """A convolution that keeps the resolution, and its normalisation."""
    weights = inputs * outputs * kernel * kernel
    return [
        ("conv", weights * pixels, weights * pixels, weights),
        ("norm", 0, outputs * pixels, 2 * outputs),
    ]


def test_costs_of_a_convolution_block_in_numbers():
    assert costs_of(architecture_of(gene("conv_3x3_16", 0))) == [
        ("conv", 5184, 5184, 108),  # 4·3·3·3 weights, 48 pixels
        ("norm", 0, 192, 8),
        ("pool", 0, 188, 0),  # 4 sums of 48
        ("linear", 20, 25, 25),
    ]


def test_costs_of_residual_blocks_in_numbers():
    assert costs_of(architecture_of(gene("res_3x3_32", 0))) == [
        ("conv", 10368, 10368, 216),  # 8·3·3·3 weights, 48 pixels
        ("norm", 0, 384, 16),
        ("conv", 27648, 27648, 576),  # 8·8·3·3
        ("norm", 0, 384, 16),
        ("sum", 0, 144, 0),  # the image has three channels, which is what is added to
        ("pool", 0, 376, 0),
        ("linear", 40, 45, 45),
    ]
    wider_input = architecture_of(gene("conv_3x3_64", 0), gene("res_5x5_16", 1))
    assert costs_of(wider_input) == [
        *conv(3, 16, 3, 48),
        *conv(16, 4, 5, 48),
        *conv(4, 4, 5, 48),
        ("sum", 0, 4 * 48, 0),  # the other twelve channels pass
        *head(16, 48),
    ]
    equal = architecture_of(gene("conv_3x3_16", 0), gene("res_3x3_16", 1))
    assert costs_of(equal)[-3:] == [("sum", 0, 4 * 48, 0), *head(4, 48)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 16, 20, 36])
@pytest.mark.parametrize("function", BLOCKS)
def test_blocks_are_as_wide_and_large_as_their_names_say(function, channels):
    kind, kernel, width = function.split("_")
    width, kernel = int(width) * channels // 16, int(kernel[0])
    rows = costs_of(architecture_of(gene(function, 0)), replace(WIDE, channels=channels))
    if kind == "conv":
        assert rows == [*conv(3, width, kernel, 48), *head(width, 48)]
    else:
        sums = ("sum", 0, min(3, width) * 48, 0)
        assert rows == [*conv(3, width, kernel, 48), *conv(width, width, kernel, 48), sums, *head(max(3, width), 48)]


def test_costs_of_merges_in_numbers():
    """A map of 8 channels at 8×6 meets one of 4 channels at 4×3: the larger one is pooled, the narrower one padded."""
    nodes = gene("conv_3x3_32", 0), gene("conv_3x3_16", 0), gene("max_pool", 2)
    before = sorted([*conv(3, 8, 3, 48), *conv(3, 4, 3, 48), ("pool", 0, 4 * 12 * 3, 0)])
    for function, after in (("sum", [("sum", 0, 4 * 12, 0), *head(8, 12)]), ("concat", head(12, 12))):
        rows = costs_of(architecture_of(*nodes, gene(function, 1, 3)))
        assert sorted(rows[:5]) == before
        assert rows[5:] == [("pool", 0, 8 * 12 * 3, 0), *after]


def test_a_node_may_be_merged_with_itself_and_the_image():
    assert costs_of(architecture_of(gene("sum", 0, 0))) == [("sum", 0, 3 * 48, 0), *head(3, 48)]
    assert costs_of(architecture_of(gene("concat", 0, 0))) == head(6, 48)
    doubled = architecture_of(gene("conv_3x3_16", 0), gene("concat", 1, 1), gene("sum", 2, 2))
    assert costs_of(doubled) == [*conv(3, 4, 3, 48), ("sum", 0, 8 * 48, 0), *head(8, 48)]


def test_a_concatenation_that_would_be_too_wide_is_a_sum():
    """The widest block has 32 channels here, so that 128 are allowed and 256, or 129, are not."""
    wide = [gene("conv_3x3_128", 0), gene("concat", 1), gene("concat", 2)]
    rows = conv(3, 32, 3, 48)
    assert costs_of(architecture_of(*wide)) == [*rows, *head(128, 48)]
    too_wide = costs_of(architecture_of(*wide, gene("concat", 3)))
    assert too_wide == [*rows, ("sum", 0, 128 * 48, 0), *head(128, 48)]
    padded = costs_of(architecture_of(*wide, gene("concat", 3, 0)))
    assert padded == [*rows, ("sum", 0, 3 * 48, 0), *head(128, 48)]


@pytest.mark.parametrize("function", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("size", "pixels"),
    [((8, 6), [4 * 3, 2 * 1]), ((5, 7), [2 * 3, 1 * 1]), ((2, 9), [1 * 4]), ((9, 3), [4 * 1]), ((1, 5), [])],
)
def test_pooling_drops_odd_edges_and_ends_at_one_pixel(function, size, pixels):
    chain = architecture_of(*(gene(function, source) for source in range(4)))
    rows = costs_of(chain, replace(WIDE, input_shape=(3, *size)))
    left = pixels[-1] if pixels else size[0] * size[1]
    assert rows == [*(("pool", 0, 3 * n * 3, 0) for n in pixels), *head(3, left)]


def test_a_merge_pools_as_often_as_the_smaller_map_was():
    """The image of 9×7 meets one that was pooled twice (2×1), and not a third time, since it cannot be."""
    chain = [gene("avg_pool", 0), gene("max_pool", 1), gene("avg_pool", 2)]
    rows = costs_of(architecture_of(*chain, gene("sum", 0, 3)), replace(WIDE, input_shape=(3, 9, 7)))
    pools = [("pool", 0, 3 * 12 * 3, 0), ("pool", 0, 3 * 2 * 3, 0)]
    assert rows == [*pools, *pools, ("sum", 0, 3 * 2, 0), *head(3, 2)]


def test_costs_carry_the_multipliers_of_the_genes():
    architecture = architecture_of(
        gene("conv_3x3_16", 0, multiplier=CHEAP),
        gene("max_pool", 1, multiplier=CHEAP),
        gene("res_3x3_16", 2),
        multiplier=EXACT,
    )
    rows = GridSpace(LIBRARY, 1, 3, 3).costs(architecture, WIDE)
    names = [row.multiplier.name for row in rows if row.kind in ("conv", "linear")]
    assert names == [CHEAP, ROUGH, ROUGH, EXACT]
    assert all(row.multiplier is None for row in rows if row.kind not in ("conv", "linear"))
    assert all(row.integer for row in rows)


def test_layers_compute_with_the_multipliers_of_the_genes():
    architecture = architecture_of(gene("conv_3x3_16", 0, multiplier=CHEAP), gene("res_3x3_16", 1), multiplier=CHEAP)
    exact = catalogue.exact(signed=True)
    for arithmetic, multipliers in (
        ("fp32", [None] * 4),
        ("int8", [exact.name] * 4),
        ("approximate", [CHEAP, ROUGH, ROUGH, CHEAP]),
    ):
        network = GridSpace(LIBRARY, 1, 2, 2).build(architecture, SHAPE, arithmetic)
        layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        used = [getattr(layer, "multiplier", None) for layer in layers]
        assert [multiplier and multiplier.name for multiplier in used] == multipliers


@settings(max_examples=12)
@given(seeds, st.sampled_from([(6, 6), (5, 7), (3, 10)]), st.sampled_from([1, 2, 3]))
def test_costs_are_those_of_the_real_network(seed, size, channels):
    """Multiplications as torch counts them in a real pass, parameters as it holds them; in every arithmetic."""
    space = GridSpace(LIBRARY, 3, 8, 3)
    architecture, shape = space.sample(np.random.default_rng(seed)), NetworkShape(channels, 1, 5, (3, *size))
    rows, network = space.costs(architecture, shape), space.build(architecture, shape, "fp32")
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.randn(1, *shape.input_shape))
    assert total_macs(rows) == counter.get_total_flops() // 2
    assert total_params(rows) == sum(p.numel() for p in network.parameters())
    for arithmetic in ARITHMETICS[1:]:
        assert trace(space.build(architecture, shape, arithmetic), shape.input_shape, integer=True) == rows


def by_functions(network: GridNetwork, architecture: GridArchitecture, images: Tensor, widest: int) -> Tensor:
    """The logits, computed in evaluation mode from the network's own weights, sizes as the maps themselves have them."""

    def normed_conv(x: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        y = F.conv2d(x, convolution.weight, padding=convolution.weight.shape[-1] // 2)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    def padded_sum(a: Tensor, b: Tensor) -> Tensor:
        width = max(a.shape[1], b.shape[1])
        return sum(F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1])) for x in (a, b))

    maps = [images]
    for node, module in zip(architecture.active, network.nodes):
        inputs = [maps[source] for source in node.sources]
        if node.function.startswith("conv"):
            maps.append(F.relu(normed_conv(*inputs, module[0], module[1])))
        elif node.function.startswith("res"):
            inner = F.relu(normed_conv(*inputs, module.first[0], module.first[1]))
            maps.append(F.relu(padded_sum(*inputs, normed_conv(inner, module.second[0], module.second[1]))))
        elif node.function in ("max_pool", "avg_pool"):
            pool = F.max_pool2d if node.function == "max_pool" else F.avg_pool2d
            maps.append(pool(inputs[0], 2) if min(inputs[0].shape[2:]) > 1 else inputs[0])
        else:
            smaller = min(map_.shape[2] for map_ in inputs), min(map_.shape[3] for map_ in inputs)
            for k in range(2):
                while inputs[k].shape[2:] != smaller:
                    inputs[k] = F.max_pool2d(inputs[k], 2)
            together = inputs[0].shape[1] + inputs[1].shape[1]
            if node.function == "concat" and together <= 4 * widest:
                maps.append(torch.cat(inputs, dim=1))
            else:
                maps.append(padded_sum(*inputs))
    return F.linear(maps[-1].mean(dim=(2, 3)), network.classifier.weight, network.classifier.bias)


def unsettled(network: GridNetwork) -> GridNetwork:
    """The network in evaluation mode, with normalisations that do something."""
    for module in network.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean), nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2), nn.init.normal_(module.bias)
    return network


def assert_computes_by_functions(architecture: GridArchitecture, shape: NetworkShape) -> None:
    space = GridSpace(LIBRARY, architecture.rows, architecture.columns, architecture.levels_back)
    network, images = unsettled(space.build(architecture, shape, "fp32")), torch.randn(3, *shape.input_shape)
    expected = by_functions(network, architecture, images, widest=8 * shape.channels)
    assert expected.std() > 0.01
    assert torch.allclose(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        [gene("res_3x3_64", 0)],
        [gene("conv_5x5_128", 0), gene("res_5x5_16", 1)],
        [gene("conv_3x3_32", 0), gene("avg_pool", 0), gene("max_pool", 2), gene("sum", 1, 3)],
        [gene("conv_3x3_16", 0), gene("max_pool", 0), gene("conv_5x5_64", 2), gene("sum", 1, 3), gene("sum", 4, 0)],
        [gene("conv_3x3_16", 0), gene("avg_pool", 0), gene("concat", 1, 2), gene("conv_3x3_16", 3)],
        [gene("conv_3x3_128", 0), *(gene("concat", k) for k in (1, 2, 3)), gene("concat", 4, 0), gene("res_3x3_16", 5)],
        [gene("max_pool", 0), gene("avg_pool", 1), gene("avg_pool", 2), gene("max_pool", 3), gene("concat", 0, 4)],
    ],
    ids=["a wider residual", "a narrower residual", "a sum of sizes", "two sums", "concat", "too wide", "pooling"],
)
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 2)], ids=str)
def test_networks_by_hand_compute_what_they_should(nodes, size):
    assert_computes_by_functions(architecture_of(*nodes), NetworkShape(2, 1, 5, (3, *size)))


@given(seeds, st.sampled_from([(8, 8), (5, 7), (1, 3)]), st.sampled_from([1, 3]))
def test_networks_at_random_compute_what_they_should(seed, size, channels):
    architecture = GridSpace(LIBRARY, 3, 8, 3).sample(np.random.default_rng(seed))
    assert_computes_by_functions(architecture, NetworkShape(channels, 1, 5, (3, *size)))


def test_what_cannot_be_built_is_refused():
    space = GridSpace(LIBRARY, 1, 5, 5)
    architecture = a_residual_merge()
    with pytest.raises(InputError, match="did you mean approximate"):
        space.build(architecture, SHAPE, "aproximate")
    for channels in (0, -1):
        with pytest.raises(InputError, match="at least one initial channel"):
            space.build(architecture, replace(SHAPE, channels=channels))
    with pytest.raises(InputError, match=r"unknown multiplier.*mul8s_1KVX.*did you mean"):
        space.build(replace(architecture, multiplier="mul8s_1KVX"), SHAPE)
    foreign = gene("conv_3x3_16", 0, multiplier="mul8s_1KR3")  # known to the catalogue, but not in this library
    with pytest.raises(InputError, match="mul8s_1KR3"):
        space.costs(replace(architecture, nodes=(foreign, *architecture.nodes[1:])), SHAPE)
    idle = replace(architecture.nodes[1], multiplier="mul8s_1KR3")
    harmless = replace(architecture, nodes=(architecture.nodes[0], idle, *architecture.nodes[2:]))
    assert space.costs(harmless, SHAPE) == space.costs(architecture, SHAPE)


# -- weights that are handed down --------------------------------------------------------------------------------------


def by_module(architecture: GridArchitecture) -> dict[str, tuple[int, str]]:
    """Name of a node's module → the node's place on the grid and its function."""
    return {f"nodes.{k}": (node.position, node.function) for k, node in enumerate(architecture.active)}


@settings(max_examples=40)
@given(seeds, st.sampled_from([(1, 5, 5), (3, 8, 2), (2, 20, 3)]))
def test_a_child_inherits_nodes_that_kept_their_place_and_function(seed, grid):
    space, rng = GridSpace(LIBRARY, *grid), np.random.default_rng(seed)
    parent = space.sample(rng)
    child = space.mutate(parent, rng)
    pairs = space.inherited(child, parent, SHAPE)
    with torch.device("meta"):
        networks = [space.build(architecture, SHAPE, "fp32") for architecture in (child, parent)]
    for mine, theirs in pairs.items():
        for network, name in zip(networks, (mine, theirs)):
            network.get_submodule(name)
        if mine != "classifier":
            assert by_module(child)[mine] == by_module(parent)[theirs]
    assert pairs["classifier"] == "classifier"
    both = set(by_module(child).values()) & set(by_module(parent).values())
    assert len(pairs) == len(set(pairs.values())) == 1 + len(both)


def test_an_equal_network_inherits_everything():
    space, rng = GridSpace(LIBRARY, 3, 8, 4), np.random.default_rng(0)
    for _ in range(10):
        architecture = space.sample(rng)
        everything = {name: name for name in (*by_module(architecture), "classifier")}
        assert space.inherited(architecture, architecture, SHAPE) == everything
        assert space.inherited(space.drift(architecture, rng), architecture, SHAPE) == everything


def test_multipliers_and_sources_do_not_stand_in_the_way_of_inheritance():
    space, parent = GridSpace(LIBRARY, 1, 5, 5), a_residual_merge()
    recoded = tuple(replace(node, multiplier=CHEAP) for node in parent.nodes)
    child = replace(parent, nodes=recoded, multiplier=CHEAP)
    assert child.key != parent.key
    pairs = space.inherited(child, parent, SHAPE)
    assert len(pairs) == 5
    assert all(by_module(child)[m] == by_module(parent)[t] for m, t in pairs.items() if m != "classifier")
    moved = (*parent.nodes[:2], gene("res_3x3_32", 1), *parent.nodes[3:])
    assert len(space.inherited(replace(parent, nodes=moved), parent, SHAPE)) == 5
    other = (gene("conv_5x5_16", 0), *parent.nodes[1:])
    assert len(space.inherited(replace(parent, nodes=other), parent, SHAPE)) == 4


def test_a_space_takes_back_architectures_of_its_own_grid_only():
    space, other = GridSpace(LIBRARY, 2, 4, 3), GridSpace(LIBRARY, 2, 4, 4)
    architecture = space.sample(np.random.default_rng(0))
    assert space.from_json(architecture.to_json()) == architecture
    with pytest.raises(InputError, match="grid of 2×4 with levels-back 3 does not belong"):
        other.from_json(architecture.to_json())
