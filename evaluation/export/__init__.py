"""A trained network as files for hardware engineers, and back.

    network.json        the layer graph in order, with the multiplier of every layer and the formulas
    network.npz         weight codes, scales, zero points, biases and batch normalisation, by layer
    multipliers/        the truth table of every circuit used (<name>.npy) and their figures (figures.csv)
    int8.onnx           the same weights under exact 8-bit products, as a standard ONNX file

What is exported is what the network computes, step by step: batch normalisation stays apart, since folding it into the
weights would change codes and roundings. ``python -m evaluation.export RUN --finalist 1 --to DIR`` writes it.
"""

from pathlib import Path

from spaces.errors import InputError


def require_new(folder: Path) -> None:
    """Raises InputError unless ``folder`` does not exist yet, or is empty."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder; export into a new one")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty; export into a new folder")
