"""Where the time of a supernet's step goes: python -m tests.gpu.profile_step --device cuda

Prints JSON: the step's time beside that in fp32, launches and busy share, and the kernels that take longest. Every line has
all that is known by then, so that a process which is ended early has told something.
"""

import argparse
import json

import torch

from evaluation.device_check import supernet_step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.profile_step")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = torch.device(parser.parse_args().device)
    quick = device.type == "cpu"
    supernet_step.measured(device, quick, lambda found: print(json.dumps({"device": device.type, **found}), flush=True))


if __name__ == "__main__":
    main()
