"""What ``python -m evaluation.check_device`` tries on a device, section by section; see docs/gpu.md."""
