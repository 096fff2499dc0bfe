"""Architectures of cells as data: keys, and a JSON form that is lossless and refused with one thing wrong."""

import copy
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cells.architecture import CellArchitecture
from spaces.errors import InputError
from tests.cells import (
    CHEAP,
    CHOICES,
    EXACT,
    NAMES,
    ROUGH,
    SCOPES,
    per_position,
    seeds,
    space_of,
    uneven,
)
from tests.guides import ROOT

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


def test_kept_records_hold_the_keys_that_their_architectures_have():
    kept = [json.loads(path.read_text()) for path in (ROOT / "reports" / "records").glob("*/record.json")]
    finalists = [finalist for record in kept for finalist in record["finalists"]]
    forms = {each["key"]: each["architecture"] for each in finalists if each["architecture"]["space"] == "cells"}
    assert len(forms) > 20
    assert all(CellArchitecture.from_json(form).key == key for key, form in forms.items())


def test_a_node_has_one_edge_or_more_in_any_order():
    architecture = uneven(space_of(nodes=3).sample(np.random.default_rng(0)))
    assert [[len(node) for node in cell.nodes] for cell in architecture.cells] == [[1, 3, 2]] * 2
    form = json.loads(json.dumps(architecture.to_json()))
    assert CellArchitecture.from_json(form) == architecture
    for cell in form["cells"]:
        cell["nodes"][1] = [cell["nodes"][1][at] for at in (2, 0, 1)]
    assert CellArchitecture.from_json(form).key == architecture.key
    del form["cells"][0]["nodes"][1][0]
    assert CellArchitecture.from_json(form).key != architecture.key


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
    "three edges from two sources": (NODE, [SEP, POOL, SEP]),
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
