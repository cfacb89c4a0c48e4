"""How a matrix lies in words: rows one after another, each segment of a row padded to a word."""

from dataclasses import dataclass

import numpy as np

from gateformer.compiler.graph import View
from gateformer.compiler.quantized import Kind, QTensor

ELEMENT_BYTES: dict[Kind, int] = {"int8": 1, "int16": 2, "int32": 4, "record": 8}
_DTYPES: dict[Kind, str] = {"int8": "<i1", "int16": "<i2", "int32": "<i4"}


def words_of(elements: int, element_bytes: int, word_bytes: int) -> int:
    """Words that hold so many elements."""
    return -(-elements * element_bytes // word_bytes)


@dataclass(frozen=True)
class Layout:
    """A matrix in words of `word_bytes`. Record tensors are packed without padding between rows."""

    rows: int
    segments: int
    segment: int
    kind: Kind
    word_bytes: int

    @classmethod
    def of(cls, tensor: QTensor, word_bytes: int) -> "Layout":
        return cls(
            tensor.rows, tensor.cols // tensor.segment, tensor.segment, tensor.kind, word_bytes
        )

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.kind]

    @property
    def segment_words(self) -> int:
        return words_of(self.segment, self.element_bytes, self.word_bytes)

    @property
    def padded_segment(self) -> int:
        """Elements of a segment with its padding."""
        return self.segment_words * self.word_bytes // self.element_bytes

    @property
    def row_words(self) -> int:
        return self.segments * self.segment_words

    @property
    def words(self) -> int:
        return self.words_of_rows(self.rows)

    def words_of_rows(self, rows: int) -> int:
        """Words of the first rows."""
        if self.kind == "record":
            return words_of(rows, 8, self.word_bytes)
        return rows * self.row_words

    def word_of(self, row: int, col: int) -> int:
        """Words from the start to the segment that starts at column `col` of a row. A row of
        records is the first of its word."""
        if self.kind == "record":
            return self.words_of_rows(row)
        return row * self.row_words + self.column_word(col)

    def column_word(self, col: int) -> int:
        """Words from the start of a row to the segment that starts at column `col`."""
        return col // self.segment * self.segment_words

    def view_elements(self, view: View) -> int:
        """Elements from the first to the last of a row of the view, inner padding included."""
        if view.cols <= self.segment:
            return view.cols
        last = view.cols // self.segment - 1
        return last * self.padded_segment + self.segment

    def physical_columns(self, view: View) -> np.ndarray:
        """Position of each of the view's columns, in elements from the view's first."""
        columns = np.arange(view.cols)
        return columns // self.segment * self.padded_segment + columns % self.segment

    def pack(self, codes: np.ndarray) -> np.ndarray:
        """The bytes of a matrix of codes [rows, segments * segment]: uint8 [words * word_bytes]."""
        padded = np.zeros((len(codes), self.segments, self.padded_segment), _DTYPES[self.kind])
        padded[:, :, : self.segment] = codes.reshape(len(codes), self.segments, self.segment)
        return padded.reshape(-1).view(np.uint8)

    def unpack(self, data: np.ndarray) -> np.ndarray:
        """The codes [rows, segments * segment] in bytes that `pack` made: int64."""
        padded = data.view(_DTYPES[self.kind]).reshape(-1, self.segments, self.padded_segment)
        return padded[:, :, : self.segment].reshape(len(padded), -1).astype(np.int64)
