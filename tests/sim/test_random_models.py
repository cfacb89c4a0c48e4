"""Random encoders of random sizes, batches and lengths, in little memory: RTL equals golden."""

import integer_graphs
import pytest
from configs import LARGE, ONE_PORT
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from runs import run

SEED = 20261121
"""Hypothesis draws the same models in every run; the failing one is printed."""


@st.composite
def models(draw, most_samples):
    """A post-norm encoder's sizes and seed, and the length of every sample of its batch."""
    tokens = draw(st.integers(1, 70))
    samples = draw(st.integers(1, most_samples))
    return {
        "sizes": {
            "tokens": tokens,
            "dim": draw(st.integers(3, 90)),
            "heads": draw(st.integers(1, 4)),
            "size": draw(st.integers(1, 40)),
            "hidden": draw(st.integers(1, 150)),
            "layers": draw(st.integers(1, 2)),
            "seed": draw(st.integers(0, 999)),
        },
        "lengths": [draw(st.integers(0 if samples > 1 else 1, tokens)) for _ in range(samples)],
        "local_kib": draw(st.sampled_from([12, 16, 28, None])),
        "stalls": draw(st.sampled_from([(0, 0), (60, 60)])),
    }


@pytest.mark.parametrize("config", [LARGE, ONE_PORT], ids=lambda config: config.name)
def test_random_encoders(config):
    print(f"hypothesis seed {SEED}")

    @seed(SEED)
    @settings(max_examples=15, deadline=None, database=None)
    @given(models(most_samples=min(config.samples, 4)))
    def check(model):
        graph = integer_graphs.post_norm(config, **model["sizes"])
        run(
            graph,
            config,
            model["stalls"],
            local_kib=model["local_kib"],
            lengths=model["lengths"],
            samples=len(model["lengths"]),
        )

    check()
