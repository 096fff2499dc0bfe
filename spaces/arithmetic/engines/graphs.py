"""What a GPU takes for work, without Python in between: launches are recorded once and run again."""

from collections.abc import Callable, Sequence

import torch


def seconds(call: Callable[[], object], launches: int, rounds: int, recorded: bool = True) -> tuple[list[float], bool]:
    """Seconds per call on the current CUDA device in each of the rounds, and whether launches were recorded as a graph.

    All that a call needs must have run before: compiled, measured, cached. A kernel of microseconds lies behind many more
    of Python, which are timed where nothing can be recorded, or with ``recorded`` False.
    """

    def many() -> None:
        for _ in range(launches):
            call()

    # A stream of this device: torch's own for graphs may be another's.
    replay = record(many, torch.cuda.Stream()) if recorded else None
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


def record(
    work: Callable[[], object],
    stream: torch.cuda.Stream,
    generators: Sequence[torch.Generator] = (),
    pool: tuple[int, int] | None = None,
) -> Callable[[], None] | None:
    """What runs ``work`` again as a graph; None where something in it waits, or another thread is in the way.

    ``generators`` are those that it draws from; ``pool`` is memory that graphs share which never run side by side.
    """
    before = torch.cuda.current_stream()
    torch.cuda.synchronize()  # what was launched before must be over
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()
    except RuntimeError:
        torch.cuda.set_stream(before)  # a recording that failed leaves its own behind
        torch.cuda.synchronize()
        return None
    return graph.replay
