"""Options and checks that several commands share."""

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`, which `find_config` resolves."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE.toml",
        help="a named config (see `gateformer configs`) or a file",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """The folder of a compiled model, as `model`."""
    parser.add_argument("model", type=Path, metavar="DIR", help="folder of `gateformer compile`")


def add_samples(parser: argparse.ArgumentParser) -> None:
    """`--input`, the file of samples."""
    parser.add_argument("--input", type=Path, required=True, metavar="IN.npz", help="the samples")


def add_shape(parser: argparse.ArgumentParser) -> None:
    """`--shape`, pairs of an input's name and its shape."""
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="NAME=1,37",
        help="the shape of an input that the file leaves open; dimensions of the same name in "
        "other inputs follow",
    )


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1,37") from None
    if not name or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1,37")
    return name, shape


def positive(text: str) -> int:
    """A whole number of at least 1, for `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
