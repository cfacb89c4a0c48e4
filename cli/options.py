"""Options and checks that several commands share."""

import argparse


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`, which `find_config` resolves."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE.toml",
        help="a named config (see `gateformer configs`) or a file",
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
