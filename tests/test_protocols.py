"""Named protocols against the published constants, and what makes two of them different."""

import dataclasses

import pytest

from evaluation import run
from evaluation.settings.protocols import PROTOCOLS, Protocol, named_protocol
from methods.approxdarts import ApproxDarts, ApproxDartsConfig
from spaces.errors import InputError


def test_darts_has_the_published_constants():
    """Liu, Simonyan, Yang, ICLR 2019, appendix A.1."""
    darts = named_protocol("darts")
    assert (darts.validation_share, darts.search_channels, darts.search_cells, darts.search_batch) == (0.5, 16, 8, 64)
    assert (darts.final_channels, darts.final_cells, darts.final_epochs, darts.batch) == (36, 20, 600, 96)
    assert (darts.final_lr, darts.momentum, darts.weight_decay, darts.clip) == (0.025, 0.9, 3e-4, 5.0)
    assert (darts.cutout, darts.auxiliary_weight, darts.drop_path, darts.selection_epochs) == (16, 0.4, 0.2, 100)
    assert (darts.crop_padding, darts.flip) == (4, True)


def test_approxdarts_searches_under_darts_as_published():
    config = ApproxDarts.presets.get("darts", ApproxDarts.Config())
    assert (config.epochs, config.relaxation, config.partial) == (50, "softmax", 1)
    assert config.weight_lr == (0.025, 0.001)
    assert (config.weight_momentum, config.weight_decay, config.clip) == (0.9, 3e-4, 5.0)
    assert (config.choice_lr, config.choice_betas, config.choice_decay) == (3e-4, (0.5, 0.999), 1e-3)


def test_presets_are_taken_by_name_and_flags_come_after_them():
    asked = run.parse(["--preset", "published", "--multipliers", "mul8s_1KTY", "--approxdarts.epochs", "3"])
    assert asked.methods["approxdarts"] == ApproxDartsConfig(epochs=3, energy_weight=0.0, proposals=1)
    assert asked.options.scope == "separable" and asked.protocol.name == "quick"
    assert run.parse(["--protocol", "darts", "--preset", "quick"]).methods["approxdarts"].relaxation == "gumbel"


def test_what_the_published_setting_says_of_a_run_gives_way_to_flags_spaces_and_other_methods():
    published = ["--preset", "published", "--multipliers", "mul8s_1KTY"]
    assert run.parse([*published, "--scope", "all"]).options.scope == "all"
    assert run.parse([*published, "--space", "bench"]).options.scope == "all"
    assert run.parse([*published, "--method", "approxdarts", "random"]).options.scope == "all"
    assert run.parse([*published, "--method", "approxdarts", "gdas"]).options.scope == "separable"
    assert run.parse(["--preset", "published", "--method", "random"]).methods["random"].samples == 100


def test_the_hash_is_of_the_values_and_not_of_the_name():
    hashes = {protocol.hash for protocol in PROTOCOLS.values()}
    assert len(hashes) == len(PROTOCOLS)
    fast = named_protocol("fast")
    renamed = Protocol(**{**dataclasses.asdict(fast), "name": "another"})
    assert renamed.hash == fast.hash
    for field in dataclasses.fields(fast):
        value = getattr(fast, field.name)
        if field.name == "gradient_precision":
            assert dataclasses.replace(fast, gradient_precision="bf16").hash != fast.hash
        elif field.name != "name":
            changed = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2 + 0.1
            assert dataclasses.replace(fast, **{field.name: changed}).hash != fast.hash, field.name


def test_every_protocol_says_where_its_values_come_from():
    for protocol in PROTOCOLS.values():
        assert type(protocol).__doc__ and type(protocol).__doc__ != Protocol.__doc__


def test_an_unknown_protocol_is_suggested():
    with pytest.raises(InputError, match="did you mean darts"):
        named_protocol("dart")
