"""Where the time of a supernet's step goes: python -m tests.gpu.profile_step --device cuda

Prints JSON: the step's time beside that in fp32, launches and busy share, and the kernels that take longest.
"""

import argparse
import json

import torch
from torch.profiler import ProfilerActivity, profile

from evaluation.device_check import supernet_step

KERNELS = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.profile_step")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = torch.device(parser.parse_args().device)
    quick = device.type == "cpu"
    found = supernet_step.measured(device, quick)
    print(json.dumps({"device": device.type, **found, "longest": longest(device, quick)}))


def longest(device: torch.device, quick: bool) -> list[dict]:
    """Kernels on a GPU, operators on a CPU: names, calls and seconds in one step, those that take longest first."""
    shape, config, batch = supernet_step.size(device, quick)
    search = supernet_step.Search(shape, config, batch, device, fp32=False)
    for _ in range(2):
        search.step()
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        search.step()
        if on_gpu:
            torch.cuda.synchronize()
    took = {
        event.key: (event.count, (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6)
        for event in profiler.key_averages()
    }
    ordered = sorted(took.items(), key=lambda item: -item[1][1])[:KERNELS]
    return [{"name": name, "calls": calls, "seconds": seconds} for name, (calls, seconds) in ordered]


if __name__ == "__main__":
    main()
