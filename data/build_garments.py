"""Build data/garments.npz from the four files of Fashion-MNIST.

    python data/build_garments.py FOLDER

FOLDER holds train-images-idx3-ubyte.gz and its three companions, for instance from Debian's package
dataset-fashion-mnist (/usr/share/datasets/fashion-mnist) or torchvision's FashionMNIST (raw/).
The first 2,000 training and 400 test images of each class are kept, in their original order.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

PER_CLASS = {"train": ("train", 2000), "test": ("t10k", 400)}


def read_idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def main(folder: Path) -> None:
    arrays = {}
    for split, (stem, count) in PER_CLASS.items():
        images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 8)
        rank = np.zeros(len(labels), int)  # how many of the same class came before
        for k in range(10):
            rank[labels == k] = np.arange((labels == k).sum())
        arrays[f"{split}_images"] = images[rank < count]
        arrays[f"{split}_labels"] = labels[rank < count]
    out = Path(__file__).parent / "garments.npz"
    np.savez_compressed(out, **arrays)
    print(out.name, f"{out.stat().st_size / 1e6:.1f} MB", {k: v.shape for k, v in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
