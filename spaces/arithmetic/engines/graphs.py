"""Work on a GPU recorded once and run again, without Python in between: for timings."""

from collections.abc import Callable

import torch


def recorded(work: Callable[[], object]) -> Callable[[], None] | None:
    """What runs ``work`` on the current CUDA device again, as a graph. All that it needs must have run before.

    None where it cannot be recorded: something in it waits for the device, or another thread is in the way.
    """
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
