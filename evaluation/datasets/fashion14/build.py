"""Make the files of ``fashion14`` from the official ones of Fashion-MNIST, downloaded or in a folder.

python -m evaluation.datasets.fashion14.build --data-dir FOLDER --out FOLDER
"""

import argparse
from pathlib import Path

from evaluation.datasets import official
from evaluation.datasets.fashion14 import COUNT, halved, packed
from evaluation.datasets.images import limited


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.datasets.fashion14.build", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of the official files; without it they are downloaded")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for train.xz and test.xz")
    options = parser.parse_args()
    for part, content in built(options.data_dir).items():
        (options.out / f"{part}.xz").write_bytes(content)
        print(f"{options.out / part}.xz: {len(content):,} bytes")


def built(data_dir: Path | None) -> dict[str, bytes]:
    """The contents of both files."""
    whole = official.load("fashion-mnist", data_dir)
    return {"train": packed(halved(limited(whole, COUNT).train)), "test": packed(halved(whole.test()))}


if __name__ == "__main__":
    main()
