"""A trained network as files for hardware engineers, and back.

    network.json        the layer graph in order, with the multiplier of every layer and the formulas
    network.npz         weight codes, scales, zero points, biases and batch normalisation, by layer
    multipliers/        the truth table of every circuit used (<name>.npy) and their figures (figures.csv)
    int8.onnx           the same weights under exact 8-bit products, as a standard ONNX file

What is exported is what the network computes, step by step: batch normalisation stays apart, since folding it into the
weights would change codes and roundings. ``python -m evaluation.export RUN --finalist 1 --to DIR`` writes it.
"""

import tempfile
from pathlib import Path

from spaces.errors import InputError


def require_new(folder: Path) -> None:
    """Raises InputError unless ``folder`` does not exist yet, or is empty, and can be written."""
    if folder.resolve() == Path.cwd():
        raise InputError("an export makes a folder of its own; give it a name other than '.' or ''")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder; export into a new one")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty; export into a new folder")
    try:
        make_staging(folder).rmdir()
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror}; choose another folder") from None


def make_staging(folder: Path) -> Path:
    """A new folder beside ``folder``, in which its files are written before it appears."""
    parent = folder.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.resolve().name}."))
