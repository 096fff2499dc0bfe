"""What a GPU takes for work, without Python in between: launches are recorded once and run again."""

from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], launches: int, rounds: int, record: bool = True) -> tuple[list[float], bool]:
    """Seconds per call on the current CUDA device in each of the rounds, and whether launches were recorded as a graph.

    All that a call needs must have run before: compiled, measured, cached. A kernel of microseconds lies behind many more
    of Python, which are timed where nothing can be recorded, or with ``record`` False.
    """

    def many() -> None:
        for _ in range(launches):
            call()

    replay = _recorded(many) if record else None
    run = replay or many
    run()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / launches)
    return times, replay is not None


def _recorded(work: Callable[[], object]) -> Callable[[], None] | None:
    """What runs ``work`` again as a graph; None where something in it waits, or another thread is in the way."""
    before, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # of this device: graph's own may be another's
    torch.cuda.synchronize()  # what was launched before must be over
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    except RuntimeError:
        torch.cuda.set_stream(before)  # a recording that failed leaves its own behind
        torch.cuda.synchronize()
        return None
    return graph.replay
