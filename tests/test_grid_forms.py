"""The JSON form of a grid's genotype: lossless, and refused with one thing wrong."""

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import InputError
from spaces.grid.architecture import GridArchitecture, GridNode
from spaces.grid.space import GridConfig, GridSpace
from tests.grids import (
    CHEAP,
    EXACT,
    GRIDS,
    LIBRARY,
    ROUGH,
    gene,
    seeds,
)


@given(seeds, st.sampled_from(GRIDS), st.sampled_from(["edge", "network"]))
def test_json_is_lossless(seed, grid, choice):
    space = GridSpace(LIBRARY, GridConfig(*grid), choice=choice)
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
