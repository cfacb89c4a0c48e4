"""A picture of what every engine did over time."""

from typing import IO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gateformer.compiler.timeline import Reason, Span
from gateformer.sim.profile import Profile
from gateformer.sim.recording import WINDOW
from gateformer.spec.isa import Engine

COLUMNS = 1200
"""Time is drawn in so many steps."""
COLORS = {
    "busy": "tab:green",
    Reason.OPERAND.value: "tab:red",
    Reason.MEMORY_PORT.value: "tab:purple",
    Reason.DRAM.value: "tab:brown",
    Reason.DRAIN.value: "tab:orange",
    Reason.SEMAPHORE.value: "lightsteelblue",
    Reason.QUEUE.value: "whitesmoke",
}
RING_FULL = "khaki"
"""In place of a missing operand's color: loaders wait for room where the others wait for data."""
LAYER_COLORS = ("tab:blue", "lightskyblue")
LETTER_SHARE = 0.004
"""Layers are named that hold the array for this share of the time for each letter of the name."""
LOADERS = (Engine.LOAD_A, Engine.LOAD_B, Engine.LOAD_P)


def draw(profile: Profile, file: IO[bytes]) -> None:
    """Writes a PNG: for every engine the shares of time in which it worked or waited, and for what;
    above them the array's layers, below them the use of DRAM."""
    cycles = profile.timeline.cycles
    edges = np.linspace(0, cycles, COLUMNS + 1)
    engines = (Engine.ARRAY, *list(Engine)[:-1])
    figure = Figure(figsize=(14, 9), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [0.6] + [1.0] * (len(engines) + 1)
    top, *rows, bottom = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _layers(top, profile)
    for axes, engine in zip(rows, engines, strict=True):
        shares = time_shares(profile.timeline.of(engine), edges)
        full = {Reason.OPERAND.value: RING_FULL} if engine in LOADERS else {}
        colors = (COLORS | full).values()
        axes.stackplot((edges[:-1] + edges[1:]) / 2, *shares.values(), colors=colors, step="mid")
        busy = 100 * profile.engines[engine].busy / max(cycles, 1)
        axes.set_ylabel(f"{engine.name}\n{busy:.1f} %", rotation=0, ha="right", va="center")
        axes.set_yticks([])
        axes.set_ylim(0, 1)
    moved = profile.recording.dram_bytes / WINDOW
    bottom.fill_between(np.arange(len(moved)) * WINDOW, moved, step="post", color="tab:gray")
    bottom.set_ylim(0, profile.config.bus_bytes)
    bottom.set_ylabel("DRAM\nbytes a cycle", rotation=0, ha="right", va="center")
    bottom.set_xlabel("cycles")
    bottom.set_xlim(0, cycles)
    title = (
        f"{profile.config.name}: {cycles:,} cycles, array {100 * profile.utilization:.1f} % busy"
    )
    figure.suptitle(f"{title} with the model's products, {100 * profile.attainable:.1f} % possible")
    legend = {**COLORS, "ring full": RING_FULL}
    figure.legend(
        handles=[Patch(color=color, label=label) for label, color in legend.items()],
        loc="outside lower center",
        ncols=len(legend),
    )
    figure.savefig(file, format="png", dpi=110)


def time_shares(spans: list[Span], edges: np.ndarray) -> dict[str, np.ndarray]:
    """The share of the time between two edges that an engine spent on each of COLORS; what it
    waited for within a span is spread over the span."""
    times, labels = [0.0], list(COLORS)
    totals = [dict.fromkeys(labels, 0.0)]

    def until(time: float, parts: dict[str, float]) -> None:
        times.append(time)
        totals.append({label: totals[-1][label] + parts.get(label, 0.0) for label in labels})

    last = 0
    for span in spans:
        inside = {
            reason.value: float(count)
            for reason, count in span.waits.items()
            if reason not in (Reason.QUEUE, Reason.SEMAPHORE)
        }
        until(span.ready, {Reason.QUEUE.value: span.ready - last})
        until(span.start, {Reason.SEMAPHORE.value: span.start - span.ready})
        until(span.end, {**inside, "busy": span.busy})
        last = span.end
    until(max(last, float(edges[-1])), {Reason.QUEUE.value: max(float(edges[-1]) - last, 0.0)})
    width = np.maximum(np.diff(edges), 1e-9)
    return {
        label: np.diff(np.interp(edges, times, [total[label] for total in totals])) / width
        for label in labels
    }


def _layers(axes: Axes, profile: Profile) -> None:
    """The layers for which the array works or waits, in turn."""
    runs: list[tuple[str, int, int]] = []
    last = 0
    for span in profile.timeline.of(Engine.ARRAY):
        name = profile.layer_of(span)
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], span.end)
        else:
            runs.append((name, last, span.end))
        last = span.end
    colors = [LAYER_COLORS[i % len(LAYER_COLORS)] for i in range(len(runs))]
    axes.broken_barh([(start, end - start) for _, start, end in runs], (0, 1), facecolors=colors)
    for name, start, end in runs:
        if end - start > LETTER_SHARE * len(name) * profile.timeline.cycles:
            axes.text(
                (start + end) / 2, 0.5, name, ha="center", va="center", fontsize=6, clip_on=True
            )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("layer of\nthe array", rotation=0, ha="right", va="center")
