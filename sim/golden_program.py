"""The golden model of the accelerator: executes a program image instruction by instruction.

Integer arrays only. Semaphores need no model: they make the hardware equal to this sequential
order.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from gateformer.sim.contraction import contract
from gateformer.spec import arithmetic, digest
from gateformer.spec.config import SAMPLE_LIMIT, SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import RunError
from gateformer.spec.isa import Engine, Format, Instruction, Opcode

_OUT: dict[Format, np.dtype] = {
    Format.INT8: np.dtype("<i1"),
    Format.INT16: np.dtype("<i2"),
    Format.INT32: np.dtype("<i4"),
}
WRITERS = (Engine.DMA, Engine.EPILOGUE, Engine.VECTOR)
"""Engines that write memory; each has a list of digests, one for each of its instructions."""


@dataclass
class GoldenMachine:
    """Local memory, DRAM window and the engines' state. dram may be empty."""

    config: AcceleratorConfig
    dram: np.ndarray
    """uint8, the DRAM window."""
    lengths: list[int] = field(default_factory=lambda: [SIZE_LIMIT] * SAMPLE_LIMIT)
    """The runtime length of every sample of a batch."""
    local: np.ndarray = field(init=False)
    """uint8, local memory."""

    def __post_init__(self) -> None:
        self.local = np.zeros(self.config.local_bytes, np.uint8)
        self._reset()

    def _reset(self) -> None:
        """What a start does: rings and tables are empty, memories keep what they hold."""
        self._digests: dict[Engine, list[int]] = {engine: [] for engine in WRITERS}
        self._b: deque[np.ndarray] = deque()
        self._records: deque[np.ndarray] = deque()
        self._table = np.zeros(0, np.uint8)
        self._exp = np.zeros(256, np.int64)
        self._gains: dict[int, np.ndarray] = {}
        self._written: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, instructions: tuple[Instruction, ...]) -> dict[Engine, list[int]]:
        """Executes up to HALT; the digests of each writing engine's instructions, in order.

        Raises RunError for a program that has no HALT.
        """
        self._reset()
        for instruction in instructions:
            if instruction.opcode is Opcode.HALT:
                return self._digests
            self.step(instruction.at_length(self.lengths))
        raise RunError("the program has no HALT instruction")

    def step(self, instruction: Instruction) -> None:
        """Executes one instruction whose dynamic sizes are already cut."""
        self._written = []
        engine = self._execute(instruction)
        if engine is not None:
            total = sum(digest.digest(a, v) for a, v in self._written) & 0xFFFFFFFF
            self._digests[engine].append(total)

    def _execute(self, i: Instruction) -> Engine | None:
        match i.opcode:
            case Opcode.DMA_LOAD | Opcode.DMA_STORE:
                self._dma(i, store=i.opcode is Opcode.DMA_STORE)
                return Engine.DMA
            case Opcode.LOAD_B:
                if i["n"] and i["k"]:
                    self._b.append(self._matrix(i["b_address"], i["b_stride"], i["n"], i["k"]))
                return None
            case Opcode.LOAD_P:
                start = i["p_address"] * self.config.word_bytes
                self._records.append(self.local[start : start + 8 * i["count"]].copy())
                return None
            case Opcode.GEMM:
                self._gemm(i)
                return Engine.EPILOGUE
            case Opcode.ACTIVATION_TABLE:
                self._table = self._bytes(i["table_address"], i["count"])
                return Engine.EPILOGUE
            case Opcode.EXP_TABLE:
                self._exp = self._bytes(i["table_address"], i["count"]).astype(np.int64)
                return Engine.VECTOR
            case Opcode.NORM_GAIN:
                self._gains[i["output16"]] = self._bytes(i["gain_address"], 8 * i["count"])
                return Engine.VECTOR
            case Opcode.SOFTMAX:
                self._softmax(i)
                return Engine.VECTOR
            case Opcode.NORM:
                self._norm(i)
                return Engine.VECTOR
            case Opcode.HALT:
                return None

    def _bytes(self, address: int, count: int) -> np.ndarray:
        start = address * self.config.word_bytes
        return self.local[start : start + count].copy()

    def _index(self, address: int, stride: int, rows: int, size: int) -> np.ndarray:
        """Byte addresses of `rows` rows of `size` bytes: [rows, size]."""
        word = self.config.word_bytes
        return (address + np.arange(rows) * stride)[:, None] * word + np.arange(size)

    def _matrix(
        self, address: int, stride: int, rows: int, cols: int, kind: str = "<i1"
    ) -> np.ndarray:
        """A matrix in local memory as int64 [rows, cols]."""
        index = self._index(address, stride, rows, cols * np.dtype(kind).itemsize)
        if index.size == 0:
            return np.zeros((rows, cols), np.int64)
        return np.ascontiguousarray(self.local[index]).view(kind).astype(np.int64)

    def _store(self, index: np.ndarray, values: np.ndarray) -> None:
        self.local[index] = values
        self._written.append((index, values))

    def _store_matrix(self, address: int, stride: int, matrix: np.ndarray, kind: np.dtype) -> None:
        data = np.ascontiguousarray(matrix.astype(kind)).view(np.uint8).reshape(len(matrix), -1)
        self._store(self._index(address, stride, len(matrix), data.shape[1]), data)

    def _dma(self, i: Instruction, *, store: bool) -> None:
        size = i["words"] * self.config.word_bytes
        rows = np.arange(i["rows"], dtype=np.int64)[:, None]
        dram = i["dram_address"] + rows * i["dram_stride"] + np.arange(size)
        local = self._index(i["local_address"], i["local_stride"], i["rows"], size)
        if dram.size and int(dram.max()) >= len(self.dram):
            raise RunError(f"{i.opcode.name} leaves the DRAM window of {len(self.dram)} bytes")
        if store:
            self.dram[dram] = self.local[local]
            self._written.append((dram, self.dram[dram]))
        else:
            self._store(local, self.dram[dram])

    def _take_b(self, n: int, k: int, *, release: bool) -> np.ndarray:
        """The oldest block of the B ring: as many LOAD_B pieces as make n rows."""
        pieces, rows = [], 0
        for piece in self._b:
            if rows >= n:
                break
            pieces.append(piece)
            rows += len(piece)
        if rows != n or any(piece.shape[1] != k for piece in pieces):
            raise RunError(f"GEMM of n={n}, k={k} does not match the B ring's oldest block")
        if release:
            for _ in pieces:
                self._b.popleft()
        return np.concatenate(pieces) if pieces else np.zeros((0, k), np.int64)

    def _gemm(self, i: Instruction) -> None:
        m, n, k = i["m"], i["n"], i["k"]
        b = self._take_b(n if k else 0, k, release=bool(i["release_b"]))
        records = self._records[0] if self._records else np.zeros(0, np.uint8)
        if i["release_p"]:
            self._records.popleft()
        if m == 0 or n == 0 or k == 0:
            return
        a = self._matrix(i["a_address"], i["a_stride"], m, k)
        sums = contract(a, b)
        fields = records.view([("b", "<i4"), ("m", "<u2"), ("s", "u1"), ("z", "u1")])
        fields = fields[:m, None] if i["by_row"] else fields[None, :n]
        total = sums + fields["b"].astype(np.int64)
        if i["addend"]:
            total += self._matrix(i["addend_address"], i["addend_stride"], m, n, "<i4")
        total = arithmetic.wrap32(total)
        form = Format(i["format"])
        if form is Format.INT32:
            out = total
        else:
            scaled = arithmetic.scale(total, fields["m"], fields["s"])
            out = self._finish(i, form, scaled)
        self._store_matrix(i["out_address"], i["out_stride"], out, _OUT[form])

    def _finish(self, i: Instruction, form: Format, scaled: np.ndarray) -> np.ndarray:
        """Saturation, activation and residual of scaled sums."""
        bits = self.config.residual_bits
        if form is Format.INT8:
            if i["activation"]:
                return self._activation(scaled)
            return arithmetic.saturate(scaled, 8)
        out = arithmetic.saturate(scaled, bits)
        if i["residual"]:
            address, stride = i["residual_address"], i["residual_stride"]
            residual = self._matrix(address, stride, i["m"], i["n"], "<i2")
            out = arithmetic.residual_add(out, residual, bits)
        return out

    def _activation(self, scaled: np.ndarray) -> np.ndarray:
        bits = self.config.activation_bits
        code = arithmetic.saturate(scaled, bits)
        if self.config.gelu == "table":
            return self._table.view(np.int8)[arithmetic.activation_index(code, bits)]
        bound, one, multiplier, selector = (int(v) for v in self._table[:16].view("<u4"))
        zero = int(self._table[16:20].view("<i4")[0])
        return arithmetic.polynomial_gelu(code, bound, one, multiplier, selector, zero)

    def _softmax(self, i: Instruction) -> None:
        rows, length, word = i["rows"], i["length"], self.config.word_bytes
        if rows == 0 or length == 0:
            return
        scores = self._matrix(i["source_address"], i["source_stride"], rows, length)
        padded = -(-length // word) * word
        numerators = np.zeros((rows, padded), np.int64)
        multipliers, selectors = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        for row in range(rows):
            bound = min(length, i["bound"] + row * i["causal"])
            numerators[row, :length], total = arithmetic.softmax_row(scores[row], bound, self._exp)
            multipliers[row], selectors[row] = arithmetic.reciprocal(i["numerator"], total)
        self._store_matrix(i["target_address"], i["target_stride"], numerators, np.dtype("<i1"))
        records = arithmetic.pack_scale_records(np.zeros(rows, int), multipliers, selectors)
        self._store(i["record_address"] * word + np.arange(8 * rows), records.ravel())

    def _norm(self, i: Instruction) -> None:
        rows, channels = i["rows"], i["channels"]
        if rows == 0 or channels == 0:
            return
        codes = self._matrix(i["source_address"], i["source_stride"], rows, channels, "<i2")
        normalized = np.stack([arithmetic.normalize_row(row, i["epsilon"]) for row in codes])
        for output16, bits in ((0, 8), (1, self.config.residual_bits)):
            width = 16 if output16 else 8
            if not i[f"write{width}"]:
                continue
            gains = self._gains[output16].view([("g", "<i2"), ("z", "<i2"), ("b", "<i4")])
            gains = gains[:channels]
            shift = arithmetic.NORM_SHIFTS[i[f"shift{width}"]]
            g, b = gains["g"].astype(np.int64), gains["b"].astype(np.int64)
            out = arithmetic.gain(normalized, g, b, shift, bits)
            address, stride = i[f"target{width}_address"], i[f"target{width}_stride"]
            self._store_matrix(address, stride, out, np.dtype(f"<i{width // 8}"))
