"""The command line: train and test one given architecture, without a search.

    python -m evaluation.train --architecture darts_v2 --multiplier mul8s_1L2H
    python -m evaluation.train --architecture runs/…/record.json --finalist 2 --export my_network
    python -m evaluation.train --resume runs/given-…

What it writes is a run folder as that of a search; its record has no validation accuracy and no hypervolume.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.cli.config_files import as_toml, expanded
from evaluation.cli.flags import (
    PLACE_FLAGS,
    flag_groups,
    place_of,
    require_alone,
    require_folders,
    settled_protocol,
)
from evaluation.cli.processes import command_line, guarded, take_part
from evaluation.settings.config import RunConfig, RunOptions, require_ranges
from evaluation.settings.protocols import Protocol, named_protocol
from spaces.cli.commands import leave
from spaces.cli.flags import Parser, Unset, flags_of, given_flags, parse_with_tyro, require_known
from spaces.cli.programs import program
from spaces.errors import InputError

PROGRAM = program("train")
DESCRIPTION = """Train one given architecture in full, test it, record everything.

Of the protocol only what concerns final training has an effect; all of it counts for which results may be compared."""


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Which architecture, and how to train it."""

    architecture: Unset[str] = ""
    """DARTS_V1, DARTS_V2, PC_DARTS or P_DARTS; a run folder or its record.json; a JSON file with an architecture as in
    records, or with a genotype (normal, normal_concat, reduce, reduce_concat); or text, as it is or in a .txt or .py file:
    Genotype(…) as the code of DARTS prints it, or |nor_conv_3x3~0|+… as NAS-Bench-201 does."""
    finalist: int = 0
    """Which finalist of a record to train, from 1; 0 takes the first."""
    multiplier: Unset[str] = ""
    """Circuit to use everywhere, by name or table file; without it an architecture keeps its own, and a genotype, which
    has none, gets the exact one."""
    scope: Literal["own", "all", "separable"] = "own"
    """What circuits govern: all convolutions and the classifier, or those of sep_conv and dil_conv; own leaves it as the
    architecture says (all for a genotype)."""
    export: Unset[str] = ""
    """Folder to export the trained network to, for hardware engineers; may be given with --resume, too."""


ALL_FLAGS = flags_of(TrainOptions) | flags_of(Protocol, "protocol.")


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, export, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(planned: list[Path]) -> int:
        given = expanded(arguments, lambda: ALL_FLAGS)
        options, protocol = parse(given)
        if options.print_config:
            left_out = () if options.finalist else ("finalist",)  # 0 stands for none, which a flag cannot say
            print(as_toml(options, protocol, options.protocol, {}, left_out), end="")
            return 0
        if "--export" in given_flags(given):
            from evaluation.export import require_new

            require_new(Path(options.export))
        from evaluation.cli.executing import go_on, start

        if options.resume:
            require_alone(given, "--export", *PLACE_FLAGS)
            if options.export and len(options.resume) > 1:
                raise InputError("--export takes one run; resume them one by one")
            code = go_on(options.resume, planned, place=place_of(given, options))
        else:
            config, library = plan(options, protocol, command_line("evaluation.train", given))
            code = start([config], library, options.out, planned)
        if options.export and code == 0:
            from evaluation.export.exporting import export_finalist

            print(export_finalist(planned[0], 1, Path(options.export)))
        return code

    return guarded(PROGRAM, work, take_part)


def parse(arguments: list[str]) -> tuple[TrainOptions, Protocol]:
    """The options and the protocol. Raises InputError; exits with 0 after --help."""
    early = Parser(PROGRAM, help_flag=False)
    early.add_argument("--protocol", default=TrainOptions.protocol)
    chosen, _ = early.parse_known_args(arguments)
    protocol = named_protocol(chosen.protocol)
    require_known(arguments, ALL_FLAGS)
    parsed = parse_with_tyro(
        flag_groups(TrainOptions(protocol=protocol.name), protocol), PROGRAM, DESCRIPTION, arguments
    )
    options: TrainOptions = parsed.common
    require_folders(arguments, options.resume)
    if not options.resume and not options.architecture:
        raise InputError(f"--architecture says what to train, as in --architecture darts_v2; see {PROGRAM} --help")
    if options.finalist < (1 if "--finalist" in given_flags(arguments) else 0):
        raise InputError("--finalist counts from 1")
    return options, settled_protocol(parsed.protocol, protocol.name)


def plan(options: TrainOptions, protocol: Protocol, command: str) -> tuple[RunConfig, tuple]:
    """The run of an architecture and its circuits. Raises InputError for what no run could be made of."""
    require_ranges(options)
    from evaluation.cli.early import require_names
    from evaluation.cli.plan import shared_settings

    require_names(options)
    from evaluation.runs.architecture_files import resolve

    given = resolve(options.architecture, options.finalist, options.multiplier, options.scope)
    settings = shared_settings(options) | given.space_settings
    settings |= {"method": f"given-{given.name}", "architecture": given.architecture.to_json()}
    config = RunConfig(
        **settings,
        # Two files of one name are two architectures.
        method_config={"architecture": given.name, "key": given.architecture.key[:8]},
        protocol=protocol,
        multipliers=tuple(multiplier.name for multiplier in given.library),
        tables={multiplier.name: multiplier.key for multiplier in given.library},
        multiplier_choice="edge",
        budget="",
        command=command,
    )
    return config, given.library


if __name__ == "__main__":
    leave(main())
