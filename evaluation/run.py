"""The command line: search, train, test and record.

    python -m evaluation.run --method approxdarts
    python -m evaluation.run --method approxdarts evoapproxnas random --seeds 3
    python -m evaluation.run --resume runs/approxdarts-digits-quick-s0-1

    torchrun --nproc-per-node 2 -m evaluation.run --method approxdarts    # finalists are trained on two devices

Bad input ends with one line that says what to do, and exit code 2. Ctrl-C ends with 130, SIGTERM with 143 and SIGHUP with
129; --resume goes on.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from evaluation.cli.flags import require_alone, require_folders, settled_protocol
from evaluation.cli.processes import command_line, guarded, take_part
from evaluation.settings.config import Options
from evaluation.settings.protocols import Protocol, named_protocol
from methods import METHODS
from spaces.cli.commands import leave
from spaces.cli.flags import Parser, flags_of, given_flags, parse_with_tyro, require_known
from spaces.errors import InputError

PROGRAM = "python -m evaluation.run"
DESCRIPTION = f"""Search networks on approximate multipliers, train the finalists, test them, record everything.

Methods: {", ".join(METHODS)}. The options of a method: {PROGRAM} --method NAME --help"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def work(planned: list[Path]) -> int:
        options, protocol, method_configs = parse(arguments)
        require_folders(arguments, options.resume)
        if options.resume:
            require_alone(arguments, "--device")
            from evaluation.cli.executing import go_on

            return go_on(options.resume, planned, device=options.device if "--device" in given_flags(arguments) else "")
        from evaluation.cli.plan import plan_runs

        configs, library = plan_runs(options, protocol, method_configs, command_line("evaluation.run", arguments))
        from evaluation.cli.executing import start

        return start(configs, library, options.out, planned)

    return guarded(PROGRAM, work, take_part)


def parse(arguments: list[str]) -> tuple[Options, Protocol, dict[str, Any]]:
    """The options, the protocol and one config per method. Raises InputError; exits with 0 after --help."""
    early = Parser(PROGRAM, help_flag=False)
    early.add_argument("--method", nargs="+")
    early.add_argument("--protocol", default=Options.protocol)
    chosen, _ = early.parse_known_args(arguments)
    protocol = named_protocol(chosen.protocol)
    asking = "--help" in arguments or "-h" in arguments
    names = chosen.method or ([] if asking else list(Options.method))
    if len(set(names)) < len(names):
        raise InputError("a method is named twice; use --seeds for several runs of one method")
    configs = {name: METHODS[name] for name in names}
    everything = dataclasses.make_dataclass(
        "Everything",
        [
            ("options", tyro.conf.OmitArgPrefixes[Options], dataclasses.field(default=Options(protocol=protocol.name))),
            (
                "protocol",
                Annotated[type(protocol), tyro.conf.arg(name="protocol")],
                dataclasses.field(default=protocol),
            ),
            *(
                (name, cls.Config, dataclasses.field(default=cls.presets.get(protocol.name, cls.Config())))
                for name, cls in configs.items()
            ),
        ],
        frozen=True,
    )
    _check_flags(arguments, {"protocol": Protocol, **{name: cls.Config for name, cls in configs.items()}})
    parsed = parse_with_tyro(everything, PROGRAM, DESCRIPTION, arguments)
    if "--multipliers" in arguments and not parsed.options.multipliers:
        raise InputError("--multipliers needs at least one circuit, table file or folder of tables")
    settings = settled_protocol(parsed.protocol, protocol.name)
    return parsed.options, settings, {name: getattr(parsed, name) for name in names}


def _check_flags(arguments: list[str], groups: dict[str, type]) -> None:
    """Raises InputError for the first unknown flag, and for one of a method that is not asked for."""
    known = flags_of(Options).union(*(flags_of(cls, f"{name}.") for name, cls in groups.items()))
    for flag in given_flags(arguments):
        method = flag[2:].partition(".")[0].replace("-", "_")
        if flag not in known and method in METHODS and method not in groups:
            raise InputError(f"{flag} belongs to method '{method}', which is not in --method")
    require_known(arguments, known)


if __name__ == "__main__":
    leave(main())
