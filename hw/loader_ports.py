"""The ports of the two forms of a loader."""

from typing import Any

from amaranth import Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import InstructionPort, LocalRead
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class LoaderPorts(Component):
    """See `Loader`: `instructions` and `read`, and the write port of a ring of `banks` banks of
    `depth` words."""

    instructions: Any
    read: Any
    release: Signal
    loaded: Signal
    write_enable: Signal
    write_position: Signal
    write_data: Signal

    def __init__(
        self,
        config: AcceleratorConfig,
        engine: Engine,
        *,
        banks: int,
        depth: int,
    ) -> None:
        self.config = config
        self.engine = engine
        self.banks = banks
        self.depth = depth
        super().__init__(
            {
                "instructions": Out(InstructionPort(engine)),
                "read": Out(LocalRead(config)),
                "release": In(1),
                "loaded": Out(1),
                "write_enable": Out(banks),
                "write_position": Out(range(depth)),
                "write_data": Out(8 * config.word_bytes),
            }
        )

    def operand(self) -> tuple[Value, Value, Value]:
        """Rows, address and stride of the operand, of the instruction at hand."""
        p = self.instructions.stream.payload
        if self.engine == Engine.LOAD_A:
            return p.m, p.a_address, p.a_stride
        return p.n, p.b_address, p.b_stride
