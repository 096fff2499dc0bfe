"""Engines for NVIDIA GPUs, in Triton."""
