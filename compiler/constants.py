"""The constants of a program image."""

import hashlib

import numpy as np


class Constants:
    """The image's data: every constant once, at word-aligned offsets."""

    def __init__(self, base: int, word_bytes: int) -> None:
        self.base = base
        self.word_bytes = word_bytes
        self.content = bytearray()
        self._seen: dict[bytes, int] = {}

    def add(self, data: np.ndarray) -> int:
        """Byte address of the data (uint8, padded to a word)."""
        content = np.ascontiguousarray(data).data
        key = hashlib.blake2b(content, digest_size=16).digest()
        if key not in self._seen:
            self._seen[key] = self.append(data)
        return self._seen[key]

    def append(self, data: np.ndarray) -> int:
        """The same for data that the program overwrites: never shared."""
        address = self.base + len(self.content)
        self.content += np.ascontiguousarray(data).data
        self.content += bytes(-data.size % self.word_bytes)
        return address
