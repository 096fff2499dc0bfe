"""The command line: search, train, test and record.

    python -m evaluation.run --method approxdarts
    python -m evaluation.run --method approxdarts evoapproxnas random --seeds 3
    python -m evaluation.run --resume runs/approxdarts-digits-quick-s0-1

    torchrun --nproc-per-node 2 -m evaluation.run --method approxdarts    # finalists are trained on two devices

Bad input ends with one line that says what to do, and exit code 2. Ctrl-C ends with 130, SIGTERM with 143 and SIGHUP with
129; --resume goes on.
"""

import sys
from pathlib import Path

from evaluation.benchmark.flags import with_table
from evaluation.cli import early
from evaluation.cli.config_files import as_toml, expanded
from evaluation.cli.flags import (
    PLACE_FLAGS,
    flag_groups,
    place_of,
    require_alone,
    require_folders,
    settled_protocol,
)
from evaluation.cli.presets import method_settings, run_options
from evaluation.cli.processes import command_line, guarded, take_part
from evaluation.settings.config import Asked, Options
from evaluation.settings.protocols import Protocol, named_protocol
from methods import METHODS
from spaces.cli.commands import leave
from spaces.cli.flags import flags_of, given_flags, parse_with_tyro, require_known
from spaces.cli.programs import program
from spaces.errors import InputError
from spaces.registry import DEFAULT, SPACES

PROGRAM = program("run")
DESCRIPTION = f"""Search networks on approximate multipliers, train the finalists, test them, record everything.

What can be chosen is listed at the end. The options of a method, or of a space: {PROGRAM} --method NAME --space NAME
--help"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(planned: list[Path]) -> int:
        given = expanded(arguments, all_flags)
        asked = parse(given)
        options = asked.options
        if options.print_config:
            groups = {**asked.methods, asked.space: asked.space_config}
            print(as_toml(options, asked.protocol, options.protocol, groups), end="")
            return 0
        require_folders(given, options.resume)
        if options.resume:
            require_alone(given, *PLACE_FLAGS)
            from evaluation.cli.executing import go_on

            return go_on(options.resume, planned, place=place_of(given, options))
        from evaluation.cli.plan import plan_runs

        configs, library = plan_runs(asked, command_line("evaluation.run", given))
        from evaluation.cli.executing import start

        return start(configs, library, options.out, planned)

    return guarded(PROGRAM, work, take_part)


def parse(arguments: list[str]) -> Asked:
    """Raises InputError; exits with 0 after --help."""
    arguments = with_table(arguments)
    chosen = early.read(PROGRAM, arguments)
    protocol = named_protocol(chosen.protocol)
    asking = "--help" in arguments or "-h" in arguments
    names = chosen.method or ([] if asking else list(Options.method))
    if len(set(names)) < len(names):
        raise InputError("a method is named twice; use --seeds for several runs of one method")
    configs = {name: METHODS[name] for name in names}
    space = _space(chosen.space, names)
    settings = method_settings(configs, chosen.preset, protocol.name)
    groups = {name: (cls.Config, settings[name]) for name, cls in configs.items()}
    groups[space] = SPACES[space].Config, SPACES[space].Config()
    _check_flags(arguments, {"protocol": Protocol, **{name: cls for name, (cls, _) in groups.items()}})
    defaults = {} if asking else run_options(configs, chosen.preset, space, given_flags(arguments))
    options = Options(protocol=protocol.name, preset=chosen.preset, **defaults)
    everything = flag_groups(options, protocol, groups)
    parsed = parse_with_tyro(everything, PROGRAM, DESCRIPTION, arguments, afterword=_choices)
    if "--multipliers" in arguments and not parsed.common.multipliers:
        raise InputError("--multipliers needs at least one circuit, table file or folder of tables")
    settled = settled_protocol(parsed.protocol, protocol.name)
    return Asked(parsed.common, settled, {name: getattr(parsed, name) for name in names}, space, getattr(parsed, space))


def _choices() -> str:
    from evaluation.cli import choices

    return choices.listing()


def all_flags() -> set[str]:
    """Those of every protocol, method and space."""
    groups = {name: METHODS[name].Config for name in METHODS} | {name: SPACES[name].Config for name in SPACES}
    own = (flags_of(cls, f"{name}.") for name, cls in groups.items())
    return flags_of(Options).union(flags_of(Protocol, "protocol."), *own)


def _space(asked: str, methods: list[str]) -> str:
    """The space to search: the one asked for, or the native one of a method that runs alone, or the common one."""
    if asked != "auto":
        _ = SPACES[asked]  # raises InputError for an unknown one
        return asked
    return METHODS[methods[0]].native_space if len(methods) == 1 else DEFAULT


def _check_flags(arguments: list[str], groups: dict[str, type]) -> None:
    """Raises InputError for the first unknown flag, and for one of a method or space that is not asked for."""
    known = flags_of(Options).union(*(flags_of(cls, f"{name}.") for name, cls in groups.items()))
    for flag in given_flags(arguments):
        name = flag[2:].partition(".")[0].replace("-", "_")
        if flag not in known and name in METHODS and name not in groups:
            raise InputError(f"{flag} belongs to method '{name}', which is not in --method")
        if flag not in known and name in SPACES and name not in groups:
            raise InputError(f"{flag} belongs to space '{name}', which is not searched; choose it with --space {name}")
    require_known(arguments, known)


if __name__ == "__main__":
    leave(main())
