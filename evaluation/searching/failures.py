"""Why trainings fail: a network that diverges or does not fit, or a machine that is broken for all of them."""

from evaluation.training import memory
from spaces.cli.programs import program
from spaces.errors import InputError


def blames_machine(error: BaseException) -> bool:
    """Whether the network is not to blame: it neither diverged, nor is too large, nor cannot be built."""
    return not isinstance(error, (FloatingPointError, ValueError)) and not memory.is_full(error)


class MachineFailures:
    """Counts equal failures of the machine in a row. One may be a network's own after all; a second one ends the work."""

    def __init__(self) -> None:
        self._last = ""

    @property
    def suspected(self) -> bool:
        """Whether the latest training failed in a way that may be the machine's."""
        return bool(self._last)

    def clear(self) -> None:
        """A network was trained, or a stage is over."""
        self._last = ""

    def note(self, suspicion: str) -> None:
        """A training ended with this ``suspicion``, "" for none. Raises InputError where it is the same as the last time."""
        if suspicion and suspicion == self._last:
            raise InputError(
                f"two trainings in a row failed alike ({suspicion}): this is the machine's failure, not the networks'; find "
                f"it with {program('check')}, then go on with --resume"
            )
        self._last = suspicion


def suspicion(error: BaseException) -> str:
    """The reason of a failure that may be the machine's; "" where the network is to blame."""
    return one_line(error) if blames_machine(error) else ""


def reason(error: BaseException, batch: int) -> str:
    """Why a candidate's training failed, in one line, the same for all that fail in the same way."""
    if memory.is_full(error):
        return f"{memory.FULL} at batch size {batch}"
    return one_line(error)


def one_line(error: BaseException) -> str:
    """Type and first line of an exception."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
