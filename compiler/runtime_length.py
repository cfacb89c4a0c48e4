"""Attention masks -> runtime lengths."""

from collections.abc import Mapping

import numpy as np

from gateformer.spec.errors import DataError

MASKED = -1000.0
"""What a float mask adds to scores that do not count is at most this."""


def length_of(masks: Mapping[str, np.ndarray], tokens: int, least: int) -> int:
    """How many tokens count by a sample's masks: the same for all of them; `tokens` without any.

    A mask's last axis are the tokens, the others may have any size. A bool mask is true where a
    token counts, a float mask 0 there and at most MASKED elsewhere. Raises DataError unless the
    tokens that count are the first ones, at least `least`, the same for every query that counts.
    """
    lengths = {name: _length(name, np.asarray(mask), tokens) for name, mask in masks.items()}
    if not lengths:
        return tokens
    name, length = next(iter(lengths.items()))
    other = next((n for n, count in lengths.items() if count != length), None)
    if other is not None:
        raise DataError(
            f"the attention masks {name!r} and {other!r} differ in length: {length} and "
            f"{lengths[other]} tokens"
        )
    if length < least:
        raise DataError(
            f"the attention mask leaves {length} tokens: this model needs at least {least}"
        )
    return length


def _length(name: str, mask: np.ndarray, tokens: int) -> int:
    if mask.ndim == 0 or mask.shape[-1] != tokens:
        raise DataError(
            f"{name!r} of shape {list(mask.shape)} is no attention mask: its last axis must be the "
            f"{tokens} tokens"
        )
    rows = mask.reshape(-1, tokens)
    if rows.dtype != bool:
        kept, dropped = rows == 0, rows <= MASKED
        if not np.all(kept | dropped):
            raise DataError(
                f"{name!r} is no attention mask: it adds values other than 0 and those of at most "
                f"{MASKED:g} to scores, which no engine does"
            )
        rows = kept
    # Queries that do not count may see anything, or nothing.
    length = int(rows.sum(axis=1).max())
    queries = rows.reshape(-1, *mask.shape[-2:])[:, :length] if mask.ndim > 1 else rows[None]
    if not np.all(queries == (np.arange(tokens) < length)):
        raise DataError(
            f"the attention mask {name!r} is not the same run of leading ones for every query: "
            "put padding behind the tokens (padding on the left and holes cannot run)"
        )
    return length
