"""The whole accelerator in RTL against the golden model: graphs, modes, stalls, speed, errors."""

import dataclasses
import json
from pathlib import Path

import integer_graphs
import numpy as np
import pytest
from configs import ALONE, CLASSICAL, FLASH, LARGE, ONE_PORT
from runs import run

from gateformer.compiler.backend import compile_layers, compile_quantized
from gateformer.compiler.cycle_model import predict_cycles
from gateformer.examples.digits.demo import Demo
from gateformer.sim import rtl
from gateformer.sim.bench import run_bench
from gateformer.sim.simulate import BUILD, GoldenRunner, RtlRunner, load, simulate
from gateformer.sim.top import SimulationTop
from gateformer.spec.dram import IDEAL
from gateformer.spec.errors import RunError
from gateformer.spec.image import ProgramImage
from gateformer.spec.isa import Engine, Instruction, Opcode, instruction
from gateformer.spec.registers import Counter, Register

CONFIGS = {c.name: c for c in (LARGE, ONE_PORT, CLASSICAL, ALONE, FLASH)}
STALLS = {"free": (0, 0), "stalled": (90, 110)}


@pytest.mark.parametrize("stalls", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_random_encoders(config, stalls):
    sizes = [(17, 48, 3, 16, 96, 1), (9, 20, 2, 12, 36, 2), (34, 24, 1, 20, 40, 1)]
    for seed, size in enumerate(sizes):
        run(integer_graphs.encoder(config, *size, seed=seed), config, stalls, seeds=(seed, 9))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_random_products(config):
    rng = np.random.default_rng(11)
    for seed in range(4):
        m, n, k = (int(v) for v in rng.integers(1, 90, 3))
        run(integer_graphs.product(config, m, n, k, seed=seed), config, (40, 40))


@pytest.mark.parametrize("config", [LARGE, ONE_PORT, CLASSICAL], ids=lambda c: c.name)
def test_digits(config):
    demo = Demo(config)
    samples = [{"image": image[None]} for image in demo.images[:20]]
    expected = demo.float_classes[:20]
    for index, result in enumerate(simulate(demo.model, samples)):
        assert result.bit_exact
        if config.gelu == "table":
            assert result.outputs[0]["logits"].argmax() == expected[index]


@pytest.mark.parametrize(
    ("config", "kib"),
    [(LARGE, 16), (ONE_PORT, 12), (CLASSICAL, 8)],
    ids=["large", "one-port", "classical"],
)
def test_activations_and_partial_sums_in_dram(config, kib):
    """Tensors of every kind leave local memory; contractions are split; the DRAM stalls."""
    graph = integer_graphs.post_norm(config, 37, 40, 2, 20, 90, 1, seed=3)
    run(graph, config, (60, 60), local_kib=kib)
    run(integer_graphs.product(config, 9, 20, 2100), config, (60, 60), local_kib=32)


@pytest.mark.parametrize("config", [LARGE, ONE_PORT], ids=lambda c: c.name)
def test_shorter_inputs_take_less_time(config):
    """One program at the lengths 1, N - 1 and N; the time is about proportional."""
    graph = integer_graphs.post_norm(config, 70, 64, 2, 32, 128, 1)
    cycles = {}
    for length in (1, 35, 69, 70):
        _, cycles[length], _ = run(graph, config, lengths=[length], local_kib=24)
    assert cycles[1] < cycles[35] < cycles[69] <= cycles[70]
    if config is ONE_PORT:
        # 16 MACs: the array is the limit, not the weights.
        assert cycles[35] < 0.6 * cycles[70]


@pytest.mark.parametrize("length", [1, 31, 60])
def test_norms_whose_int16_result_comes_late(length):
    graph = integer_graphs.post_norm(LARGE, 60, 100, 2, 32, 300, seed=3)
    names = compile_layers(graph, LARGE.replace(local_kib=16))[1].names
    assert any("/int16/row" in name for name in names)
    run(graph, LARGE, STALLS["stalled"], local_kib=16, lengths=[length])


def test_samples_in_turn():
    """With a classifier that runs once, at the end."""
    graph = integer_graphs.encoder(LARGE, 70, 64, 2, 32, 256)
    names = compile_layers(graph, LARGE.replace(local_kib=32), samples=2)[1].names
    assert names.index("b0.down@0") < names.index("embed@1") < names.index("classify")
    run(graph, LARGE, STALLS["stalled"], local_kib=32, samples=2)


def test_the_cycle_model_knows_an_epilogue_without_multipliers_for_two_rows():
    image, cycles, _ = run(integer_graphs.encoder(FLASH, 20, 96, 3, 32, 192, seed=1), FLASH)
    assert predict_cycles(FLASH, image.instructions) == pytest.approx(cycles, rel=0.02)


def test_minilm_layer_streams_through_dram():
    """A layer of all-MiniLM-L6-v2's shape: activations in DRAM, at least 78 % busy; the predicted
    cycles are right to 2 %."""
    graph = integer_graphs.post_norm(LARGE, 128, 384, 12, 32, 1536, 1)
    image, cycles, _ = run(graph, LARGE)
    assert graph.macs / (LARGE.macs * cycles) >= 0.78
    assert abs(predict_cycles(LARGE, image.instructions) / cycles - 1) < 0.02


def test_stalls_change_cycles_and_nothing_else():
    graph = integer_graphs.encoder(LARGE, 17, 48, 3, 16, 96, 1)
    _, free, _ = run(graph, LARGE)
    _, stalled, _ = run(graph, LARGE, (128, 128))
    assert stalled > 1.2 * free


def test_engines_work_at_once():
    _, cycles, counters = run(integer_graphs.encoder(LARGE, 65, 64, 4, 16, 128, 1), LARGE)
    busy = (Counter.DMA_BUSY, Counter.ARRAY_BUSY, Counter.VECTOR_BUSY)
    assert sum(counters[counter] for counter in busy) > 1.1 * cycles


def test_a_large_product_keeps_the_array_busy():
    """256x768x768, operands and result in DRAM at 2 bytes a cycle: at least 90 %."""
    image, cycles, counters = run(integer_graphs.product(LARGE, 256, 768, 768), LARGE)
    assert image.model_macs == 256 * 768 * 768
    assert counters[Counter.ARRAY_BUSY] * LARGE.macs >= image.model_macs
    assert image.model_macs / (LARGE.macs * cycles) >= 0.90


def program_of(*instructions):
    return ProgramImage(ONE_PORT.hash, 0, b"", instructions, 65536, (), (), (0, 0, 0))


HALT = instruction(Opcode.HALT)
GOOD = instruction(Opcode.DMA_LOAD, rows=1, words=4, local_address=3, dram_address=128)
ERRORS = {
    "size": (instruction(Opcode.SOFTMAX, rows=1, length=4000), "ILLEGAL_INSTRUCTION"),
    "local": (
        instruction(
            Opcode.DMA_LOAD, rows=2, words=4, local_address=ONE_PORT.local_words - 4, local_stride=4
        ),
        "LOCAL_ADDRESS",
    ),
    "read": (
        instruction(Opcode.LOAD_B, n=2, k=64, b_address=ONE_PORT.local_words - 8, b_stride=8),
        "LOCAL_ADDRESS",
    ),
    "window": (instruction(Opcode.DMA_LOAD, rows=1, words=4, dram_address=65536), "DRAM_ADDRESS"),
    "stuck": (instruction(Opcode.LOAD_B, wait=1 << Engine.DMA, n=2, k=8), "WATCHDOG"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_stops_with_code_and_address_and_the_next_program_runs(name):
    bad, code = ERRORS[name]
    with rtl.RtlMachine(rtl.build(ONE_PORT, BUILD), ONE_PORT) as machine:
        for image, error in (
            (program_of(GOOD, GOOD, bad, HALT), code),
            (program_of(GOOD, HALT), 0),
        ):
            runner = RtlRunner(machine, image)
            load(runner, ONE_PORT, image)
            if error:
                with pytest.raises(RunError, match=f"{code}.*0x40"):
                    runner.start()
            else:
                golden = GoldenRunner(ONE_PORT, image)
                load(golden, ONE_PORT, image)
                assert runner.start() == golden.start()


def test_an_opcode_that_does_not_exist_stops_the_program():
    image = program_of(GOOD, HALT)
    with rtl.RtlMachine(rtl.build(ONE_PORT, BUILD), ONE_PORT) as machine:
        runner = RtlRunner(machine, image)
        load(runner, ONE_PORT, image)
        machine.write_dram(32, b"\x0f")
        with pytest.raises(RunError, match=r"ILLEGAL_INSTRUCTION.*0x20"):
            runner.start()
        load(runner, ONE_PORT, image)
        runner.start()


def test_the_host_stops_a_program():
    stuck = program_of(ERRORS["stuck"][0], HALT)
    config = ONE_PORT
    with rtl.RtlMachine(rtl.build(config, BUILD), config) as machine:
        runner = RtlRunner(machine, stuck)
        load(runner, config, stuck)
        machine.write_register(Register.CONTROL, 1)
        machine.write_register(Register.CONTROL, 2)
        assert machine.read_register(Register.STATUS) & 4


def test_in_cocotb(tmp_path):
    """The same top under cocotb, with Python as the host in every cycle."""
    config = ONE_PORT
    image = tmp_path / "program.bin"
    graph = integer_graphs.encoder(config, 5, 16, 2, 8, 24, 1, seed=4)
    image.write_bytes(compile_quantized(graph, config).to_bytes())
    run_bench(
        SimulationTop(config),
        str(Path(__file__).with_name("bench_accelerator.py")),
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict()), "IMAGE": str(image)},
        sources=(Path(rtl.__file__).with_name("dram_storage.v"),),
    )


@pytest.mark.parametrize("config", [LARGE, ONE_PORT], ids=lambda c: c.name)
def test_runtime_length(config):
    """Groups of rows are cut to the LENGTH register; what is cut away is not written, and fewer
    rows never take longer, but for what DRAM's rows and refreshes do by chance."""
    image = compile_quantized(integer_graphs.product(config, 70, 24, 40), config)
    program, row = [], 0
    for one in image.instructions:
        values = dict(one.values)
        if one.opcode is Opcode.GEMM:
            values |= {"m_dynamic": 1, "m_offset": row}
        if one.opcode is Opcode.DMA_STORE:
            values |= {"rows_dynamic": 1, "rows_offset": values["dram_address"] // 48 % 70}
        program.append(Instruction(one.opcode, values))
        if one.opcode is Opcode.GEMM:
            row = (row + values["m"]) % 70
    image = dataclasses.replace(image, instructions=tuple(program))
    cycles = []
    with rtl.RtlMachine(rtl.build(config, BUILD, timing=IDEAL), config) as machine:
        for length in (0, 1, 33, 69, 70):
            golden, runner = GoldenRunner(config, image), RtlRunner(machine, image)
            golden.set_lengths([length])
            runner.set_lengths([length])
            load(golden, config, image)
            load(runner, config, image)
            assert runner.start() == golden.start()
            cycles.append(machine.cycles)
    assert cycles == sorted(cycles)
    assert cycles[1] < cycles[-1]
