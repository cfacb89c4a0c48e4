"""The DMA engine in time: the bursts of a transfer."""

from gateformer.compiler import timing as t
from gateformer.compiler.dram_bus import DramBus
from gateformer.compiler.sequencer_model import SequencerModel
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Instruction, Opcode


def transfer(
    config: AcceleratorConfig,
    bus: DramBus,
    sequencer: SequencerModel,
    instruction: Instruction,
    start: int,
) -> int:
    """When a DMA instruction that starts at a time ends. The fetch has its bursts between."""
    i = instruction
    size = i["words"] * config.word_bytes
    if not i["rows"] or not size:
        return start + 3
    store = i.opcode is Opcode.DMA_STORE
    word_beats = config.word_bytes // config.bus_bytes
    offer, end = start + t.DMA_START, start
    for row in range(i["rows"]):
        address = i["dram_address"] + row * i["dram_stride"]
        last = address + size
        while address < last:
            stop = min((address // config.burst_bytes + 1) * config.burst_bytes, last)
            beats = (stop - address) // config.bus_bytes
            if store:
                offer += beats // word_beats * t.store_word_cycles(config) + t.DMA_STORE_READ
                sequencer.beside(offer)
                end = bus.burst(offer, address, beats)
                offer = bus.accepts + t.DMA_BURST
            else:
                sequencer.beside(offer)
                offer = max(offer, bus.accepts) + t.DMA_BURST
                end = bus.read(offer - t.DMA_BURST, address, beats)
            address = stop
        offer += t.DMA_ROW - t.DMA_BURST
    return end + (t.DMA_STORE_LATENCY if store else bus.timing.latency + t.DMA_LOAD_LATENCY)
