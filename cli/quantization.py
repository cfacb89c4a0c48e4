"""The options of quantization on the command line (docs/quantization.md)."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateformer.compiler.quantize_options import QuantizationOptions


def _alpha(text: str) -> float | None:
    try:
        return None if text == "off" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor off") from None


def add_quantization(parser: argparse.ArgumentParser) -> None:
    """Adds them; what is not given keeps the default of QuantizationOptions."""
    group = parser.add_argument_group("quantization", "see docs/quantization.md")
    group.add_argument(
        "--estimator",
        choices=("minmax", "percentile", "mse"),
        default=argparse.SUPPRESS,
        help="how ranges follow from the calibration samples: all of it, a share of the values, or "
        "the least mean square error (default: mse)",
    )
    group.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        default=argparse.SUPPRESS,
        help="percent of the values that the estimator percentile covers (default: 99.99)",
    )
    group.add_argument(
        "--smoothing",
        type=_alpha,
        metavar="ALPHA|off",
        default=argparse.SUPPRESS,
        help="share of the ratio between a norm's channels that moves into weights (default: 0.5)",
    )
    group.add_argument(
        "--no-centering",
        dest="centering",
        action="store_false",
        default=argparse.SUPPRESS,
        help="do not shift each of a norm's channels to the middle of its range",
    )
    group.add_argument(
        "--no-zero-points",
        dest="zero_points",
        action="store_false",
        default=argparse.SUPPRESS,
        help="no zero point for the results of activations",
    )
    group.add_argument(
        "--weights",
        choices=("channel", "tensor"),
        default=argparse.SUPPRESS,
        help="one scale for each output channel of a weight matrix, or one for all (default: "
        "channel)",
    )
    group.add_argument(
        "--residual-bits",
        type=int,
        metavar="BITS",
        default=argparse.SUPPRESS,
        help="bits of the residual stream that are used (default: all that the config has)",
    )
    for name, what in (
        ("stream", "residual stream over what calibration saw (default: 1.25)"),
        ("scores", "softmax's scores over what calibration saw (default: 1.25)"),
        ("output", "outputs over what calibration saw (default: 1.5)"),
    ):
        group.add_argument(
            f"--{name}-headroom",
            type=float,
            metavar="X",
            default=argparse.SUPPRESS,
            help=f"range of the {what}",
        )


def quantization_options(arguments: argparse.Namespace) -> "QuantizationOptions":
    """What was given. Raises ConfigError for a value that makes no sense."""
    from dataclasses import fields

    from gateformer.compiler.quantize_options import QuantizationOptions

    names = {field.name for field in fields(QuantizationOptions)}
    return QuantizationOptions(**{k: v for k, v in vars(arguments).items() if k in names})
