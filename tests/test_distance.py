"""The distance between two networks: by hand, as a distance must be, and in records and reports."""

import itertools

import numpy as np
import pytest

from reports.load import load
from reports.tables.distances import winners
from spaces.distance import between, distance, distances, parts
from spaces.errors import InputError
from spaces.multipliers import catalogue
from spaces.registry import SPACES
from tests import tiny
from tests.made_records import finalist, record, save
from tests.running import finished_run

LIBRARY = catalogue.library(["mul8s_1KV8", "mul8s_1L2H"])


def samples(name: str, count: int = 5) -> list:
    space, rng = SPACES[name](LIBRARY, SPACES[name].small), np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def test_two_cells_by_hand():
    """Of a cell's two edges one has another operation and multiplier, of four facts; and a third edge has no counterpart."""
    one = [("node 0", "input 0", "sep_conv_3x3", "1KV8"), ("node 0", "input 1", "skip_connect", "")]
    other = [("node 0", "input 0", "sep_conv_5x5", "1L2H"), ("node 0", "input 1", "skip_connect", "")]
    assert between(one, other) == between(other, one) == 2 / 4
    far = [*one, ("node 1", "node 0", "max_pool_3x3", "none")]
    assert between(one, far) == between(far, one) == 1
    assert between(one, []) == 1 and between([], []) == 0


@pytest.mark.parametrize("name", SPACES)
def test_it_is_a_distance_between_0_and_1(name):
    drawn = samples(name)
    apart = np.array(distances(drawn))
    assert (apart == apart.T).all() and (apart.diagonal() == 0).all()
    assert 0 < apart.max() <= 1 and apart.min() == 0
    for a, b, c in itertools.permutations(range(len(drawn)), 3):  # of cells in the same places
        assert apart[a, c] <= apart[a, b] + apart[b, c] + 1e-12


def test_a_neighbour_is_nearer_than_a_stranger():
    space, rng = SPACES["cells"](LIBRARY, SPACES["cells"].Config()), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(10)]
    near = [distance(a, space.mutate(a, rng)) for a in drawn]
    assert np.mean(near) < 0.5 * np.mean([distance(a, b) for a, b in itertools.combinations(drawn, 2)])


def test_cells_that_are_repeated_are_found_in_a_network_with_a_cell_for_each_position():
    (pair,) = samples("cells", 1)
    normal, reduction = pair.cells
    whole = type(pair)((normal, reduction, normal, reduction, normal), pair.multiplier, pair.scope)
    assert len(parts(SPACES["cells"].edges(whole))) == 5
    assert pair.key != whole.key and distance(pair, whole) == distance(whole, pair) == 0


def test_networks_of_two_spaces_have_none():
    with pytest.raises(InputError, match="compare within one space"):
        distance(*samples("cells", 1), *samples("grid", 1))


def test_it_stands_in_the_record_and_in_the_report(tmp_path):
    _, made = finished_run(tmp_path / "run", tiny.run_config("zero", baselines="none"))
    networks = [SPACES["cells"].architecture_type.from_json(each.architecture) for each in made.finalists]
    assert made.distances == distances(networks) != ()
    a, b, c = samples("cells", 3)
    for at, (method, seed, network) in enumerate((("random", 0, a), ("random", 1, b), ("zero", 0, c), ("zero", 1, b))):
        data = record(finalist(architecture=network.to_json(), key=network.key), method=method, seed=seed)
        save(tmp_path / "made" / str(at), {**data, "distances": [[0.0]]})
    (section,) = load([tmp_path / "made"]).sections
    table = winners(section)
    assert [column.header for column in table.columns] == ["method", "random", "zero", "among finalists"]
    values = [[cell.value for cell in row] for row in table.rows]
    across = distance(a, c) / 2  # seed 1 has found the same network
    assert values == [["random", distance(a, b), across, None], ["zero", across, distance(c, b), None]]
