"""The parameters of one accelerator, checked when made, each check with its reason."""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateformer.spec.errors import ConfigError

FAMILIES = ("generic", "ecp5", "ice40")
INSTRUCTION_BYTES = 32
SAMPLE_LIMIT = 16
"""Most samples that an instruction can name."""
SIZE_LIMIT = 4095
"""Largest size field of an instruction (12 bits)."""

_MADE_OF = ("name", "family", "lut_multipliers", "multipliers", "norm_constants", "counters")
"""Parameters that no program depends on."""


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Every size of an accelerator. Immutable; making one runs all checks.

    Raises :class:`ConfigError` with the reason when the parameters cannot work together.
    """

    name: str
    rows: int
    """Rows of processing elements; each holds one row of A (one output row)."""
    cols: int
    """Columns of processing elements; each holds one row of B (one output column)."""
    lanes: int
    """Products that a processing element adds up in one cycle."""
    lut_multipliers: int = 0
    """How many of these are made of LUTs, where the FPGA has no multipliers for all."""
    word_bytes: int = 8
    """Bytes in a word of local memory."""
    local_kib: int
    """Size of local memory in KiB."""
    memory_ports: int = 2
    """2: a read and a write each cycle; 1: one of them (iCE40 SPRAM)."""
    a_depth: int
    """Words in each row bank of the feeder's A ring."""
    b_depth: int
    """Words in each column bank of the feeder's B ring."""
    p_depth: int
    """Scale records in the epilogue's parameter ring."""
    accumulator_tiles: int
    """Tiles that the accumulator buffer holds between array and epilogue."""
    epilogue_lanes: int = 1
    """Outputs that the epilogue finishes in a cycle; each lane serves rows/epilogue_lanes rows."""
    residual_bits: int = 16
    """Width to which the residual stream saturates; it is stored in 16 bits."""
    activation_bits: int = 10
    """Width of the activation table's input: 8 or 10 bits."""
    gelu: Literal["table", "polynomial"] = "table"
    """Activation unit: a table filled by the program, or I-BERT's polynomial (GELU only)."""
    multipliers: Literal["dsp", "serial"] = "dsp"
    """What multiplies behind the array: the FPGA's multipliers, or, where the array takes them all,
    LUTs that go through the digits of a factor, which takes some cycles for each output."""
    softmax_lanes: int = 1
    """Scores that the softmax unit handles in one cycle."""
    softmax_length: int = 256
    """Longest softmax row in elements."""
    norm_lanes: int = 1
    """Channels that the norm unit handles in one cycle."""
    norm_constants: int = 1
    """Rows for which the norm unit makes the constants at a time. Those of one row take some 200
    cycles, as long as 200 channels take one lane."""
    norm_length: int = 256
    """Most channels of a normalized row."""
    bus_bytes: int = 2
    """Bytes in a beat of the external memory port."""
    burst_bytes: int = 256
    """Longest burst on the external memory port."""
    dram: Literal["readwrite", "readonly", "none"] = "readwrite"
    """External memory: read and written, only read (flash), or absent."""
    dram_mib: int = 32
    """MiB of external memory that addresses can reach."""
    samples: int = 1
    """Most samples of one batch, each with a runtime length of its own."""
    queue_depth: int = 8
    """Slots for the instructions of each engine; one, two with prefetch, are not for waiting."""
    prefetch: bool = True
    """Whether every engine holds its next instruction while it runs one: more flip-flops in place
    of some forty cycles between two instructions of an engine."""
    counters: bool = True
    """Whether there are performance counters beside that of all cycles; without, they read 0."""
    watchdog_cycles: int = 1 << 20
    """Cycles without any progress after which the sequencer stops with an error."""
    family: Literal["generic", "ecp5", "ice40"] = "generic"
    """FPGA family whose primitives are instantiated."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int or field.type == "int":
                least = 0 if field.name == "lut_multipliers" else 1
                self._require(
                    isinstance(value, int) and not isinstance(value, bool) and value >= least,
                    f"{field.name} is {value!r}: it must be a whole number of at least {least}",
                )
        self._check_array()
        self._check_memory()
        self._check_engines()

    def _require(self, condition: bool, reason: str) -> None:
        if not condition:
            raise ConfigError(f"config {self.name!r}: {reason}")

    def _check_array(self) -> None:
        need = self._require
        need(
            isinstance(self.name, str) and bool(self.name),
            "name must be a non-empty string: files and reports carry it",
        )
        need(self.rows <= 64, f"rows is {self.rows}: more than 64 rows are not tested")
        need(self.cols <= 64, f"cols is {self.cols}: more than 64 columns are not tested")
        need(
            _power_of_two(self.lanes) and self.lanes <= 64,
            f"lanes is {self.lanes}: a power of two up to 64, so that words split into steps",
        )
        need(
            self.lut_multipliers <= self.lanes,
            f"lut_multipliers {self.lut_multipliers} exceed lanes {self.lanes}: they are some of "
            "a processing element's products",
        )
        need(
            _power_of_two(self.word_bytes) and 8 <= self.word_bytes <= 64,
            f"word_bytes is {self.word_bytes}: a power of two from 8 (one scale record) to 64",
        )
        need(
            self.lanes <= self.word_bytes,
            f"lanes {self.lanes} exceed word_bytes {self.word_bytes}: a word feeds whole steps",
        )
        need(
            self.rows % self.epilogue_lanes == 0,
            f"epilogue_lanes {self.epilogue_lanes} do not divide rows {self.rows}: "
            "each lane serves the same number of rows",
        )

    def _check_memory(self) -> None:
        need = self._require
        need(self.memory_ports in (1, 2), f"memory_ports is {self.memory_ports}: it is 1 or 2")
        need(
            self.local_words <= 1 << 16,
            f"local_kib {self.local_kib} makes {self.local_words} words: addresses have 16 bits, "
            "raise word_bytes or lower local_kib",
        )
        for name in ("a_depth", "b_depth"):
            depth = getattr(self, name)
            need(
                8 <= depth <= 1 << 14,
                f"{name} is {depth}: a ring bank has 8 to 16384 words",
            )
        need(
            8 <= self.p_depth <= 4096,
            f"p_depth is {self.p_depth}: the parameter ring has 8 to 4096 records",
        )
        need(
            self.p_depth % (self.word_bytes // 8) == 0,
            f"p_depth {self.p_depth} is no multiple of the {self.word_bytes // 8} in a word",
        )
        need(
            2 <= self.accumulator_tiles <= 1024,
            f"accumulator_tiles is {self.accumulator_tiles}: at least 2, so that the next tile "
            "runs while one drains, and at most 1024",
        )
        need(
            _power_of_two(self.bus_bytes) and self.bus_bytes <= self.word_bytes,
            f"bus_bytes is {self.bus_bytes}: a power of two that divides word_bytes "
            f"{self.word_bytes}, so that beats fill words",
        )
        need(
            _power_of_two(self.burst_bytes)
            and max(self.word_bytes, INSTRUCTION_BYTES) <= self.burst_bytes <= 4096,
            f"burst_bytes is {self.burst_bytes}: a power of two that holds a word and an "
            "instruction, at most 4096",
        )
        need(
            self.dram in ("readwrite", "readonly", "none"),
            f"dram is {self.dram!r}: one of readwrite, readonly, none",
        )

        need(
            _power_of_two(self.dram_mib) and 4 <= self.dram_mib <= 4096,
            f"dram_mib is {self.dram_mib}: a power of two from 4 to 4096, for DRAM addresses have "
            "32 bits",
        )

    def _check_engines(self) -> None:
        need = self._require
        need(
            12 <= self.residual_bits <= 16,
            f"residual_bits is {self.residual_bits}: 12 to 16; less loses the model, more does not "
            "fit its 16-bit storage",
        )
        need(
            self.activation_bits in (8, 10),
            f"activation_bits is {self.activation_bits}: the table has 256 or 1,024 entries",
        )
        need(
            self.gelu in ("table", "polynomial"),
            f"gelu is {self.gelu!r}: table or polynomial",
        )
        need(
            self.multipliers in ("dsp", "serial"),
            f"multipliers is {self.multipliers!r}: dsp or serial",
        )
        need(
            self.multipliers != "serial"
            or (
                self.epilogue_lanes == self.norm_lanes == self.norm_constants == 1
                and self.gelu == "table"
            ),
            f"serial multipliers serve one lane and a table, not {self.epilogue_lanes} epilogue "
            f"lanes, {self.norm_lanes} norm lanes, {self.norm_constants} norm constants and gelu "
            f"{self.gelu!r}",
        )
        for lanes, length, unit in (
            (self.softmax_lanes, self.softmax_length, "softmax"),
            (self.norm_lanes, self.norm_length, "norm"),
        ):
            need(
                _power_of_two(lanes) and lanes <= 8,
                f"{unit}_lanes is {lanes}: a power of two up to 8, so that words split evenly",
            )
            need(
                length <= SIZE_LIMIT,
                f"{unit}_length is {length}: size fields have 12 bits ({SIZE_LIMIT})",
            )
            need(
                length % self.word_bytes == 0,
                f"{unit}_length {length} is no multiple of word_bytes {self.word_bytes}",
            )
        need(
            self.norm_lanes <= 4,
            f"norm_lanes is {self.norm_lanes}: a power of two up to 4, which take 8 bytes",
        )
        need(
            _power_of_two(self.norm_constants) and self.norm_constants <= 4,
            f"norm_constants is {self.norm_constants}: a power of two up to 4, more rows than that "
            "are not on their way at a time",
        )
        need(
            self.norm_length <= 1024,
            f"norm_length is {self.norm_length}: the sums' widths are proven up to 1024",
        )
        need(
            _power_of_two(self.samples) and self.samples <= SAMPLE_LIMIT,
            f"samples is {self.samples}: a power of two up to {SAMPLE_LIMIT}, for instructions "
            "name their sample in 4 bits",
        )
        need(
            _power_of_two(self.queue_depth) and 4 <= self.queue_depth <= 64,
            f"queue_depth is {self.queue_depth}: a power of two from 4 to 64",
        )
        need(
            256 <= self.watchdog_cycles < 1 << 31,
            f"watchdog_cycles is {self.watchdog_cycles}: at least 256, else slow memory trips it",
        )
        need(self.family in FAMILIES, f"family is {self.family!r}: one of {', '.join(FAMILIES)}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates in one cycle."""
        return self.rows * self.cols * self.lanes

    @property
    def local_bytes(self) -> int:
        return self.local_kib * 1024

    @property
    def local_words(self) -> int:
        return self.local_bytes // self.word_bytes

    @property
    def dram_bits(self) -> int:
        """Bits of a byte address of external memory."""
        return 20 + (self.dram_mib - 1).bit_length()

    @property
    def address_bits(self) -> int:
        """Bits of a word address of local memory."""
        return max(1, (self.local_words - 1).bit_length())

    @property
    def k_max(self) -> int:
        """Longest contraction of one product: what a row bank of A and a column bank of B hold
        twice, so that the next tile is loaded while one runs."""
        return min(min(self.a_depth, self.b_depth) // 2 * self.word_bytes, SIZE_LIMIT)

    @property
    def accumulator_bits(self) -> int:
        """Bits of a partial sum: k_max products of at most 2**14, and a sign."""
        return 15 + self.k_max.bit_length()

    @property
    def hash(self) -> int:
        """32 bits that name the parameters a program depends on (not what it is made of)."""
        record = {k: v for k, v in self.as_dict().items() if k not in _MADE_OF}
        text = json.dumps(record, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def replace(self, **changes: Any) -> "AcceleratorConfig":
        """A copy with some parameters changed, checked again."""
        try:
            return dataclasses.replace(self, **changes)
        except TypeError as error:
            raise ConfigError(f"config {self.name!r}: {error}") from None

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def to_toml(self) -> str:
        lines = (f"{key} = {json.dumps(value)}" for key, value in self.as_dict().items())
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, record: dict[str, Any], *, source: str = "config") -> "AcceleratorConfig":
        """Makes a config from plain values; names unknown, missing and mistyped parameters."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(record) - set(fields))
        if unknown:
            raise ConfigError(
                f"{source}: unknown parameter {unknown[0]!r}; known are {', '.join(fields)}"
            )
        missing = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in record
        ]
        if missing:
            raise ConfigError(f"{source}: parameter {missing[0]!r} is missing")
        return cls(**record)

    @classmethod
    def load(cls, path: Path) -> "AcceleratorConfig":
        """Reads a .toml or .json file. Raises ConfigError when it cannot."""
        try:
            text = path.read_text(encoding="utf-8")
            record = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"cannot read config file {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config file {path} does not parse: {error}") from None
        if not isinstance(record, dict):
            raise ConfigError(f"config file {path} holds no table of parameters")
        return cls.from_dict(record, source=f"config file {path}")
