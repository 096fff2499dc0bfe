"""A graph without a GPU: operations of torch are noted with the tensors they had, and done again on the same memory.

What Python decided, and every number that it handed over, is as fixed as in a CUDA graph. Noting them has no effect.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


def memory(x: Tensor) -> Tensor:
    """What a tensor holds, where it pretends to lie elsewhere (tests.pretend)."""
    return getattr(x, "held", x).detach()


# Running averages, which the operation's schema says nothing of.
_ALSO_CHANGED = {aten.native_batch_norm.default: slice(3, 5)}


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []
        self.before: list[tuple[Tensor, Tensor]] = []  # what was changed, and how it was

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (aten._local_scalar_dense.default, aten.nonzero.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        schema = function._schema
        changed = [
            value
            for argument, value in zip(schema.arguments, args)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        leaves = tree_leaves([changed, args[_ALSO_CHANGED.get(function, slice(0))]])
        self.before += [(memory(t), memory(t).clone()) for t in leaves if isinstance(t, Tensor)]
        results = function(*args, **kwargs)
        aliases = [part.alias_info for part in schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):  # a view is there for good
            fresh = [t for t in tree_leaves(results) if isinstance(t, Tensor)] if not any(aliases) else []
            self.operations.append((function, args, kwargs, fresh))
        return results

    def undo(self) -> None:
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, fresh in self.operations:
                results = tree_leaves(function(*args, **kwargs))
                for target, result in zip(fresh, [t for t in results if isinstance(t, Tensor)]):
                    memory(target).copy_(memory(result))


class TapeRecorder:
    """Stands in for ``spaces.graphed_step.CudaRecorder``; counts what it was asked for."""

    def __init__(self) -> None:
        self.ran = self.recorded = self.replayed = 0

    def run(self, work: Callable[[], None]) -> None:
        self.ran += 1
        work()

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None] | None:
        self.recorded += 1
        states, tape, failed = [generator.get_state() for generator in generators], _Tape(), False
        try:
            with tape:
                work()
        except RuntimeError:
            failed = True
        tape.undo()
        for generator, state in zip(generators, states):
            generator.set_state(state)

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return None if failed else replay
