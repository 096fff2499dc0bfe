"""Genotypes of a grid: graphs in one form, and keys that are equal exactly when the networks are."""

import hashlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.grid.architecture import BLOCKS, GridArchitecture, GridNode
from spaces.grid.canonical import _Graph, canonical_order
from spaces.grid.space import GridConfig, GridSpace
from tests.examples import examples
from tests.grids import (
    CHEAP,
    EXACT,
    LIBRARY,
    NAMES,
    a_residual_merge,
    architecture_of,
    gene,
    seeds,
    used_genes,
)

Labelled = tuple[list[str], list[list[int]]]  # labels and sources of a graph's nodes


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


@settings(max_examples=examples(150))
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
    architecture = GridSpace(LIBRARY, GridConfig(*grid)).sample(np.random.default_rng(seed))
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
    rng, space = np.random.default_rng(seed), GridSpace(LIBRARY, GridConfig(*grid))
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
    architecture = few_kinds(rng, *grid[:2]) if few else GridSpace(LIBRARY, GridConfig(*grid)).sample(rng)
    used = used_genes(architecture)
    rows, columns = int(rng.integers(1, 4)), len(used) + int(rng.integers(4))
    larger = GridSpace(LIBRARY, GridConfig(rows, columns, columns)).sample(rng)
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
    architecture = few_kinds(rng, 4, 4) if few else GridSpace(LIBRARY, GridConfig(4, 6, 3)).sample(rng)
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
