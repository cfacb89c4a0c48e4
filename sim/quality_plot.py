"""A picture of a quality report."""

from typing import IO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gateformer.sim.quality import Quality

COLORS = {"gemm": "tab:blue", "softmax": "tab:orange", "norm": "tab:green"}
WIDTH = 0.07
"""Inches of one layer."""
NAMED = 5
"""Layers that are named."""


def draw(quality: Quality, file: IO[bytes]) -> None:
    """Writes a PNG: the signal-to-noise ratio of every layer's result, and of its own noise, in the
    order in which the layers run; the layers that cost most are numbered and named."""
    layers = quality.layers
    figure = Figure(figsize=(max(8.0, 2 + WIDTH * len(layers)), 7), layout="constrained")
    FigureCanvasAgg(figure)
    own, total = figure.subplots(2, 1, sharex=True)
    for axes, ratios, title in (
        (own, [layer.own_snr for layer in layers], "noise that each layer adds by itself"),
        (total, [layer.snr for layer in layers], "all noise in each layer's result"),
    ):
        for kind, color in COLORS.items():
            at = [i for i, layer in enumerate(layers) if layer.kind == kind]
            axes.plot(at, [ratios[i] for i in at], "o", ms=3, color=color, label=kind)
        axes.set_title(title)
        axes.set_ylabel("signal to noise [dB]")
        axes.grid(alpha=0.3)
    index = {id(layer): i for i, layer in enumerate(layers)}
    costly = quality.costly(NAMED)
    for number, layer in enumerate(costly, 1):
        place = (index[id(layer)], layer.own_snr)
        own.annotate(str(number), place, xytext=(3, 3), textcoords="offset points", fontsize=8)
    names = [f"{number}: {layer.name}" for number, layer in enumerate(costly, 1)]
    total.set_xlabel("layer, in the order in which they run\n" + "\n".join(names))
    handles, labels = own.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(COLORS))
    figure.savefig(file, format="png", dpi=120)
