"""Every encoder family, compiled: exact to float as far as stated, and RTL equal to golden."""

import numpy as np
import pytest
from configs import LARGE

from gateformer.compiler.samples import split_samples
from gateformer.examples.families.families import FAMILIES
from gateformer.examples.families.report import compile_family, measure
from gateformer.sim.simulate import BUILD, simulate
from gateformer.spec.errors import DataError

MASKED = [family for family in FAMILIES if family.masks]


CYCLES = 0.02
"""By how much of the RTL's cycles the cycle model may be off."""


def named(family):
    return family.name


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_integers_are_close_to_float_and_rtl_equals_them(family):
    seen = measure(family, LARGE, build=BUILD)
    assert seen.bit_exact
    assert seen.imported < 1e-4
    assert seen.decibels >= family.decibels
    assert seen.predicted == pytest.approx(seen.cycles, rel=CYCLES)


@pytest.mark.parametrize("family", MASKED, ids=named)
def test_shorter_inputs_take_less_time(family):
    """A mask of 1, of all but one and of all tokens, through one and the same program."""
    full = measure(family, LARGE, build=BUILD)
    almost = measure(family, LARGE, length=family.tokens - 1, build=BUILD)
    one = measure(family, LARGE, length=1, build=BUILD)
    assert full.bit_exact and almost.bit_exact and one.bit_exact
    assert almost.decibels >= family.decibels
    assert one.decibels >= 28
    assert one.cycles < almost.cycles <= full.cycles
    for seen in (full, almost, one):
        assert seen.predicted == pytest.approx(seen.cycles, rel=CYCLES)
    assert one.macs < almost.macs < full.macs


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_a_length_without_masks(name, tmp_path):
    family = next(family for family in FAMILIES if family.name == name)
    compiled, _ = compile_family(family, LARGE, tmp_path)
    samples = split_samples(family.inputs(1, 7))
    least = compiled.image.least_tokens
    assert least == {"vit": 1, "deit": 2}[name]
    cycles = []
    for length in (least, family.tokens - 1, family.tokens, None):
        (run,) = simulate(compiled, samples, length=length, build=BUILD)
        assert run.bit_exact
        cycles.append(run.cycles)
    assert cycles[0] < cycles[1] <= cycles[2] == cycles[3]
    for length in (least - 1, family.tokens + 1):
        with pytest.raises(DataError, match=f"not between {least} and {family.tokens}"):
            list(simulate(compiled, samples, engine="golden", length=length))


def test_masks_that_are_no_length_are_refused(tmp_path):
    family = MASKED[0]
    compiled, _ = compile_family(family, LARGE, tmp_path)
    sample = split_samples(family.inputs(1, 7))[0]
    for counts in (np.arange(family.tokens) > 0, np.arange(family.tokens) != 3):
        mask = counts.astype(np.int64)[None]
        with pytest.raises(DataError, match="leading ones"):
            list(simulate(compiled, [{**sample, "attention_mask": mask}], engine="golden"))
    nothing = np.zeros((1, family.tokens), np.int64)
    with pytest.raises(DataError, match="needs at least 1"):
        list(simulate(compiled, [{**sample, "attention_mask": nothing}], engine="golden"))


def test_a_length_where_the_end_reads_the_mask_is_refused(tmp_path):
    """The mean over tokens on the host would still be that of the longer mask."""
    family = next(family for family in FAMILIES if family.sentence)
    compiled, _ = compile_family(family, LARGE, tmp_path)
    samples = split_samples(family.inputs(1, 7))
    with pytest.raises(DataError, match="shorter attention mask"):
        list(simulate(compiled, samples, engine="golden", length=5))


def test_fractional_ids_are_refused(tmp_path):
    family = MASKED[0]
    compiled, _ = compile_family(family, LARGE, tmp_path)
    sample = split_samples(family.inputs(1, 7))[0]
    wrong = {**sample, "input_ids": sample["input_ids"] + 0.5}
    with pytest.raises(DataError, match="'input_ids' must hold integers"):
        list(simulate(compiled, [wrong], engine="golden"))


@pytest.mark.parametrize("name", ["bert", "deit"])
def test_a_batch_equals_its_samples(name, tmp_path):
    """Samples of different lengths run together as each one runs alone; the last batch is short."""
    family = next(family for family in FAMILIES if family.name == name)
    single, _ = compile_family(family, LARGE, tmp_path)
    together, _ = compile_family(family, LARGE, tmp_path, samples=4)
    samples = [
        split_samples(family.inputs(1, seed, length if family.masks else None))[0]
        for seed, length in enumerate((family.tokens, 1, 9, family.tokens - 1, 5, 2))
    ]
    runs = list(simulate(together, samples, build=BUILD))
    assert [len(run.outputs) for run in runs] == [4, 2]
    assert all(run.bit_exact for run in runs)
    alone = list(simulate(single, samples, build=BUILD))
    for one, run in zip(alone, (o for r in runs for o in r.outputs), strict=True):
        for key, value in one.outputs[0].items():
            assert np.array_equal(value, run[key])
    assert sum(run.macs for run in runs) == sum(run.macs for run in alone)
    assert runs[0].cycles < sum(run.cycles for run in alone[:4])
