"""The named configs, from the smallest board to the largest."""

from pathlib import Path

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ConfigError

TINY = AcceleratorConfig(
    name="tiny",
    rows=1,
    cols=2,
    lanes=8,
    local_kib=128,
    memory_ports=1,
    a_depth=64,
    b_depth=256,
    p_depth=64,
    accumulator_tiles=16,
    activation_bits=8,
    multipliers="serial",
    softmax_length=128,
    norm_length=128,
    dram_mib=8,
    queue_depth=4,
    prefetch=False,
    counters=False,
    family="ice40",
)
"""16 MACs for the iCE40 UP5K: its eight multipliers, two 8x8 products each, its SPRAM."""

SMALL = AcceleratorConfig(
    name="small",
    rows=2,
    cols=2,
    lanes=4,
    local_kib=64,
    a_depth=256,
    b_depth=1024,
    p_depth=256,
    accumulator_tiles=64,
    norm_length=512,
    samples=4,
    family="ecp5",
)
"""16 MACs for the smaller ECP5s."""

ECP5_85K = AcceleratorConfig(
    name="ecp5-85k",
    rows=4,
    cols=4,
    lanes=8,
    local_kib=224,
    a_depth=512,
    b_depth=3072,
    p_depth=512,
    accumulator_tiles=128,
    epilogue_lanes=2,
    softmax_lanes=4,
    softmax_length=512,
    norm_lanes=1,
    norm_length=1024,
    samples=16,
    queue_depth=32,
    family="ecp5",
)
"""128 MACs for the LFE5U-85F."""

ECP5_85K_256 = ECP5_85K.replace(
    name="ecp5-85k-256",
    lanes=16,
    lut_multipliers=9,
    word_bytes=16,
    local_kib=272,
    a_depth=128,
    b_depth=1024,
    epilogue_lanes=4,
    norm_lanes=2,
    norm_constants=2,
)
"""256 MACs for the LFE5U-85F: seven of sixteen products on its multipliers, the others in LUTs.
Twice the work for the same DRAM: block RAM serves local memory rather than the rings, so that less
spills; that of A is made of LUTs. The norm is twice as fast, to keep up with the products."""

NAMED: dict[str, AcceleratorConfig] = {
    config.name: config for config in (TINY, SMALL, ECP5_85K, ECP5_85K_256)
}


def find_config(name_or_file: str) -> AcceleratorConfig:
    """The named config, or the one in a .toml or .json file.

    Raises ConfigError when there is neither.
    """
    if name_or_file in NAMED:
        return NAMED[name_or_file]
    path = Path(name_or_file)
    if path.suffix in (".toml", ".json"):
        return AcceleratorConfig.load(path)
    raise ConfigError(
        f"no config is named {name_or_file!r}: use one of {', '.join(NAMED)}, "
        "or a .toml or .json file"
    )
