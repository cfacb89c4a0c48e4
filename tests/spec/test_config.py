"""Configs: every check fires with its reason; files round-trip."""

import pytest

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, NAMED, SMALL, TINY, find_config
from gateformer.spec.errors import ConfigError

BAD = [
    ({"rows": 0}, "rows"),
    ({"rows": 65}, "rows"),
    ({"cols": 65}, "cols"),
    ({"rows": True}, "rows"),
    ({"rows": 2.0}, "rows"),
    ({"lanes": 3}, "lanes"),
    ({"lanes": 16}, "word_bytes"),
    ({"lut_multipliers": 9}, "lut_multipliers"),
    ({"lut_multipliers": -1}, "lut_multipliers"),
    ({"word_bytes": 12}, "word_bytes"),
    ({"word_bytes": 4}, "word_bytes"),
    ({"local_kib": 1024}, "16 bits"),
    ({"memory_ports": 3}, "memory_ports"),
    ({"a_depth": 4}, "a_depth"),
    ({"b_depth": 1 << 15}, "b_depth"),
    ({"p_depth": 4}, "p_depth"),
    ({"p_depth": 513, "word_bytes": 16}, "p_depth"),
    ({"accumulator_tiles": 1}, "accumulator_tiles"),
    ({"epilogue_lanes": 3}, "epilogue_lanes"),
    ({"residual_bits": 11}, "residual_bits"),
    ({"residual_bits": 17}, "residual_bits"),
    ({"activation_bits": 9}, "activation_bits"),
    ({"gelu": "exact"}, "gelu"),
    ({"multipliers": "lut"}, "multipliers"),
    ({"multipliers": "serial", "epilogue_lanes": 2}, "one lane"),
    ({"multipliers": "serial", "epilogue_lanes": 1, "norm_constants": 2}, "one lane"),
    ({"multipliers": "serial", "epilogue_lanes": 1, "gelu": "polynomial"}, "one lane"),
    ({"softmax_lanes": 3}, "softmax_lanes"),
    ({"softmax_length": 100}, "softmax_length"),
    ({"norm_lanes": 8}, "norm_lanes"),
    ({"norm_constants": 3}, "norm_constants"),
    ({"norm_length": 2048}, "norm_length"),
    ({"bus_bytes": 16}, "bus_bytes"),
    ({"burst_bytes": 16}, "burst_bytes"),
    ({"dram": "flash"}, "dram"),
    ({"queue_depth": 3}, "queue_depth"),
    ({"watchdog_cycles": 10}, "watchdog_cycles"),
    ({"family": "asic"}, "family"),
    ({"name": ""}, "name"),
]


@pytest.mark.parametrize(("changes", "word"), BAD, ids=lambda v: str(v))
def test_a_config_that_cannot_work_says_why(changes, word):
    with pytest.raises(ConfigError, match=word):
        ECP5_85K.replace(**changes)


@pytest.mark.parametrize("config", NAMED.values(), ids=lambda c: c.name)
def test_files_round_trip(config, tmp_path):
    for suffix, text in ((".toml", config.to_toml()), (".json", config.to_json())):
        path = tmp_path / f"c{suffix}"
        path.write_text(text)
        assert AcceleratorConfig.load(path) == config
        assert find_config(str(path)) == config


def test_named_configs_are_what_the_documents_promise():
    assert (TINY.rows, TINY.cols, TINY.lanes, TINY.macs) == (1, 2, 8, 16)
    assert (TINY.local_kib, TINY.memory_ports) == (128, 1)
    assert (SMALL.rows, SMALL.cols, SMALL.lanes, SMALL.local_kib) == (2, 2, 4, 64)
    assert (ECP5_85K.rows, ECP5_85K.cols, ECP5_85K.lanes, ECP5_85K.macs) == (4, 4, 8, 128)
    assert 224 <= ECP5_85K.local_kib <= 256
    large = NAMED["ecp5-85k-256"]
    assert large.macs == 256
    assert large.rows * large.cols * (large.lanes - large.lut_multipliers) <= 144


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("rows = [", "parse"),
        ('name = "x"', "missing"),
        (ECP5_85K.to_toml() + "colour = 1\n", "colour"),
        (ECP5_85K.to_toml().replace("rows = 4", 'rows = "4"'), "rows"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, word):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word):
        AcceleratorConfig.load(path)


def test_a_missing_file_and_an_unknown_name_are_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        AcceleratorConfig.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="tiny, small, ecp5-85k"):
        find_config("huge")


def test_the_hash_is_of_what_programs_depend_on():
    assert ECP5_85K.hash == ECP5_85K.replace(name="other", family="generic").hash
    assert TINY.hash == TINY.replace(multipliers="dsp").hash
    assert ECP5_85K.hash != ECP5_85K.replace(a_depth=256).hash
