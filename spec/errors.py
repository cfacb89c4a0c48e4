"""The exceptions that a user of gateformer can cause and can mend."""


class GateformerError(Exception):
    """Base of every error that is the input's fault: one sentence says what, where and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class ConfigError(GateformerError):
    """A configuration that cannot work, with the reason."""


class ModelError(GateformerError):
    """A model file that cannot be read or holds something no engine supports."""


class DataError(GateformerError):
    """An input array of wrong name, shape, type or value."""


class CapacityError(GateformerError):
    """A model that does not fit the configuration: what is too large, which parameter helps."""


class ImageError(GateformerError):
    """A program image that is damaged, truncated, or made for another config or version."""


class ToolError(GateformerError):
    """A tool of the flow (Verilator, Yosys, nextpnr) is missing or failed."""


class RunError(GateformerError):
    """The accelerator stopped with an error code; the message names the instruction."""
