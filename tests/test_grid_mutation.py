"""A grid's samples, mutants and drift, and the weights that a child inherits."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spaces.grid.space as space_module
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.grid.architecture import FUNCTIONS, GridArchitecture
from spaces.grid.space import MUTATION_RATE, GridConfig, GridSpace
from tests.grids import (
    CHEAP,
    LIBRARY,
    NAMES,
    SHAPE,
    a_residual_merge,
    both_choices,
    every_grid,
    gene,
    multipliers_of,
    random_walk,
    seeds,
    used_genes,
)


@every_grid
@both_choices
def test_the_same_seed_draws_the_same(grid, choice):
    def draw() -> list[GridArchitecture]:
        rng, space = np.random.default_rng(3), GridSpace(LIBRARY, GridConfig(*grid), choice=choice)
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
    space, rng = GridSpace(LIBRARY, GridConfig(1, 3, 3), choice="network"), np.random.default_rng(0)
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
    space, rng = GridSpace(LIBRARY, GridConfig(2, 3, 2), choice=choice), np.random.default_rng(0)
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
    space, rng = GridSpace(LIBRARY, GridConfig(*grid), choice=choice), np.random.default_rng(11)
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
    space, rng, rounds = GridSpace(LIBRARY, GridConfig(2, 4, 2)), np.random.default_rng(0), []
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
    space, rng = GridSpace(LIBRARY, GridConfig(2, 4, 2)), np.random.default_rng(2)
    architecture, seen = space.sample(rng), set()
    for _ in range(600):
        seen |= set(changed_genes(architecture, space.mutate(architecture, rng)))
    fixed = {(index, name) for index in (0, 1) for name in ("first", "second")}  # there is the image only
    assert seen == set(genes_of(architecture)) - fixed


def test_active_genes_mutate_at_their_rate():
    """All of a chain's nodes are active, so that a round seldom changes nothing, and rarely needs another."""
    space, rng = GridSpace(LIBRARY, GridConfig(1, 40, 1)), np.random.default_rng(5)
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
    space, rng = GridSpace(LIBRARY, GridConfig(*grid), choice=choice), np.random.default_rng(1)
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
    space, rng = GridSpace(LIBRARY, GridConfig(3, 12, 12)), np.random.default_rng(4)
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
    space, rng = GridSpace(LIBRARY, GridConfig(3, 8, 4), choice="network"), np.random.default_rng(4)
    architecture = space.sample(rng)
    names = {name for _ in range(50) for _, name in changed_genes(architecture, space.drift(architecture, rng))}
    assert names == {"function", "first", "second"}


def test_without_mutation_there_is_no_neighbour(monkeypatch):
    monkeypatch.setattr(space_module, "MUTATION_RATE", 0.0)
    space, rng = GridSpace(LIBRARY, GridConfig(1, 1, 1)), np.random.default_rng(0)
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
        ({"rows": 65}, "at most 64 rows"),
        ({"columns": 257}, "256 columns, not 5×257"),
        ({"choice": "cell"}, "not per cell"),
        ({"scope": "separable"}, "not separable"),
    ],
)
def test_an_impossible_space_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        sizes = {name: arguments[name] for name in ("rows", "columns", "levels_back") if name in arguments}
        others = {name: value for name, value in arguments.items() if name not in sizes}
        GridSpace(LIBRARY, GridConfig(**sizes), **others)


@every_grid
@both_choices
def test_the_reference_is_valid_and_fixed(grid, choice):
    """Blocks in columns 0, 2 and 4 of a chain through the first row, pooling in the others, at the highest power."""
    space = GridSpace(LIBRARY, GridConfig(*grid), choice=choice)
    reference = space.reference()
    assert reference == GridSpace(LIBRARY[::-1], GridConfig(*grid)).reference()
    assert space.from_json(reference.to_json()) == reference
    columns = grid[1]
    functions = ["res_5x5_128" if column in (0, 2, 4) else "max_pool" for column in range(columns)]
    assert [node.function for node in reference.active] == functions
    assert [node.sources for node in reference.active] == [(column,) for column in range(columns)]
    assert [node.position for node in reference.active] == [column * grid[0] for column in range(columns)]
    assert multipliers_of(reference) == {max(LIBRARY, key=lambda m: m.power_mw).name}
    rows = space.costs(reference, replace(SHAPE, input_shape=(3, 32, 32)))
    assert COSTS["horowitz45"].network(rows, "int8").total > 0


# -- weights that are handed down --------------------------------------------------------------------------------------


def by_module(architecture: GridArchitecture) -> dict[str, tuple[int, str]]:
    """Name of a node's module → the node's place on the grid and its function."""
    return {f"nodes.{k}": (node.position, node.function) for k, node in enumerate(architecture.active)}


@settings(max_examples=40)
@given(seeds, st.sampled_from([(1, 5, 5), (3, 8, 2), (2, 20, 3)]))
def test_a_child_inherits_nodes_that_kept_their_place_and_function(seed, grid):
    space, rng = GridSpace(LIBRARY, GridConfig(*grid)), np.random.default_rng(seed)
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
    space, rng = GridSpace(LIBRARY, GridConfig(3, 8, 4)), np.random.default_rng(0)
    for _ in range(10):
        architecture = space.sample(rng)
        everything = {name: name for name in (*by_module(architecture), "classifier")}
        assert space.inherited(architecture, architecture, SHAPE) == everything
        assert space.inherited(space.drift(architecture, rng), architecture, SHAPE) == everything


def test_multipliers_and_sources_do_not_stand_in_the_way_of_inheritance():
    space, parent = GridSpace(LIBRARY, GridConfig(1, 5, 5)), a_residual_merge()
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
    space, other = GridSpace(LIBRARY, GridConfig(2, 4, 3)), GridSpace(LIBRARY, GridConfig(2, 4, 4))
    architecture = space.sample(np.random.default_rng(0))
    assert space.from_json(architecture.to_json()) == architecture
    with pytest.raises(InputError, match="grid of 2×4 with levels-back 3 does not belong"):
        other.from_json(architecture.to_json())
