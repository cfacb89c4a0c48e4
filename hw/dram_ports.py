"""The ports of what shares the read half of the external memory port."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import DramRead
from gateformer.spec.config import AcceleratorConfig


class DramPorts(Component):
    """`fetch` and `dma` are served over `port`."""

    fetch: wiring.PureInterface
    dma: wiring.PureInterface
    port: wiring.PureInterface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "fetch": In(DramRead(config)),
                "dma": In(DramRead(config)),
                "port": Out(DramRead(config)),
            }
        )
