"""Samples and mutants of the cell space, and what is derived from scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cells.architecture import OPERATION_NAMES, Cell, CellArchitecture, Edge
from spaces.costs import COSTS
from tests.cells import (
    CHEAP,
    CHOICES,
    EXACT,
    NAMES,
    ROUGH,
    SCOPES,
    SHAPE,
    assert_ties,
    assert_valid,
    edges_of,
    every_space,
    multipliers_of,
    per_position,
    seeds,
    space_of,
    uneven,
)


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


def test_every_node_keeps_its_number_of_edges():
    space, rng = space_of(nodes=3), np.random.default_rng(4)
    architecture, moved = uneven(space.sample(rng)), set()
    for _ in range(200):
        child = space.mutate(architecture, rng)
        assert [[len(node) for node in cell.nodes] for cell in child.cells] == [[1, 3, 2]] * 2
        for before, after in zip(architecture.cells, child.cells):
            pairs = enumerate(zip(before.nodes, after.nodes))
            moved |= {at for at, (old, new) in pairs if {e.source for e in old} != {e.source for e in new}}
        architecture = child
    assert moved == {0, 2}  # the second node has all its sources


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
    sites = space_of(choice, scope, 2).ties
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
    multiplier_scores = rng.normal(size=(space.ties.count, 3))
    got = space.derive({"alpha": operation_scores.reshape(-1, 8), "beta": multiplier_scores}, space.choices(SHAPE))

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
                    Edge(s, OPERATION_NAMES[o], best_multiplier(space.ties.edges[kind, edges.index((node, s))]))
                    for s, o in best[1:]
                )
            )
        outer = best_multiplier(space.ties.cells[kind]) if scope == "all" else None
        cells.append(Cell(tuple(chosen), bool(kind), outer))
    stem = best_multiplier(space.ties.network) if scope == "all" else None
    assert got == CellArchitecture(tuple(cells), stem, scope)
    assert_valid(got, nodes)
    assert_ties(got, choice)
