"""Models that come with gateformer."""
