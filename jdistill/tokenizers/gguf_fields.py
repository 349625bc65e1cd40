# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer as the fields of a GGUF file, checked by reading them back."""

import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from jdistill import gguf_file
from jdistill.tokenizers import documents, gguf
from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")

# Where the pre-tokenizers that llama.cpp knows by name cut differently.
_PROBE = (
  "Hello world, it's 1234567 o'clock; I'LL say: DON'T!  two   three\n\n\n"
  "  def f(x):\n\treturn x[0]['k'] != {}  # ok\r\n"
  "caf\u00e9 cafe\u0301 na\u00efve \u4f60\u597d\uff0c\u4e16\u754c"
  " \u043f\u0440\u0438\u0432\u0435\u0442 \u0e2a\u0e27\u0e31\u0e2a"
  " \U0001f600\U0001f468\u200d\U0001f469 x86_64 3.14e-10 HTMLParser camelCase"
  " ABCdef \u00bd \u0663\u0664\u0665 /usr/bin//x\n end "
)


def gguf_fields(
  tokenizer: "PreTrainedTokenizerFast", vocab_size: int
) -> dict[str, Any]:
  """The `tokenizer.*` metadata that llama.cpp builds a tokenizer from.

  A GGUF file only names its pre-tokenizer. So the name is looked for under
  which the fields, read back, cut a difficult text as the tokenizer does.

  Args:
    tokenizer: byte-level BPE or SentencePiece's BPE.
    vocab_size: logits of the head; ids without a token are filled up.
  Returns: fields as `jdistill.models.weights.save_gguf` takes them.
  Raises:
    UserError: it is of another kind, or of no pre-tokenizer that is known.
  """
  name = tokenizer.name_or_path or "(unnamed)"
  model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
  if model.get("type") != "BPE":
    raise UserError(
      f"tokenizer {name} is {model.get('type')}; GGUF files are written with"
      " byte-level BPE or SentencePiece BPE"
    )
  sentencepiece = bool(model.get("byte_fallback"))
  tokens, kinds = _tokens(tokenizer, vocab_size, sentencepiece)
  merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
  fields = _common(tokenizer, tokens, kinds)
  if sentencepiece:
    prefix = documents.prepends_space(tokenizer)
    fields |= {
      "tokenizer.ggml.model": "llama",
      "tokenizer.ggml.scores": _scores(tokens, model["merges"]),
      "tokenizer.ggml.add_space_prefix": prefix,
    }
    names: tuple[str, ...] = ("default",)
  else:
    fields |= {
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.merges": merges,
    }
    names = gguf.PRE_TOKENIZERS
  for pre in names:
    candidate = fields | {"tokenizer.ggml.pre": pre}
    if _reads_like(candidate, tokenizer):
      return candidate
  raise UserError(
    f"tokenizer {name} cuts text like none of the pre-tokenizers that a GGUF"
    f" file can name here ({', '.join(names)}); export to hf"
  )


def _tokens(
  tokenizer: "PreTrainedTokenizerFast", vocab_size: int, sentencepiece: bool
) -> tuple[list[str], np.ndarray]:
  """The token of each id and its kind, gaps and padding filled."""
  tokens = [f"[PAD{i}]" for i in range(vocab_size)]
  kinds = np.full(vocab_size, _UNUSED, np.int32)
  for token, index in tokenizer.get_vocab().items():
    if index >= vocab_size:
      raise UserError(
        f"tokenizer {tokenizer.name_or_path or '(unnamed)'}: id {index}"
        f" ({token!r}) is beyond the head's {vocab_size} logits"
      )
    tokens[index] = token
    byte = sentencepiece and _BYTE_TOKEN.fullmatch(token)
    kinds[index] = _BYTE if byte else _NORMAL
  for index, added in tokenizer.added_tokens_decoder.items():
    kinds[index] = _CONTROL if added.special else _USER_DEFINED
  if sentencepiece and tokenizer.unk_token_id is not None:
    kinds[tokenizer.unk_token_id] = _UNKNOWN
  return tokens, kinds


def _scores(tokens: list[str], merges: list[Any]) -> np.ndarray:
  """What SentencePiece would rank a token by: its first merge comes first."""
  rank: dict[str, int] = {}
  for number, merge in enumerate(merges):
    pair = merge.split(" ") if isinstance(merge, str) else merge
    rank.setdefault("".join(pair), number)
  last = len(merges)
  return np.array([-rank.get(t, last) for t in tokens], np.float32)


def _common(
  tokenizer: "PreTrainedTokenizerFast", tokens: list[str], kinds: np.ndarray
) -> dict[str, Any]:
  ids = {
    "bos": tokenizer.bos_token_id,
    "eos": tokenizer.eos_token_id,
    "unknown": tokenizer.unk_token_id,
    "padding": tokenizer.pad_token_id,
  }
  fields: dict[str, Any] = {
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": kinds,
    "tokenizer.ggml.add_bos_token": documents.adds_bos(tokenizer),
    "tokenizer.ggml.add_eos_token": documents.adds_eos(tokenizer),
  }
  fields |= {
    f"tokenizer.ggml.{name}_token_id": int(i)
    for name, i in ids.items()
    if i is not None
  }
  if isinstance(tokenizer.chat_template, str):
    fields["tokenizer.chat_template"] = tokenizer.chat_template
  return fields


def _reads_like(
  fields: dict[str, Any], tokenizer: "PreTrainedTokenizerFast"
) -> bool:
  header = gguf_file.Header(
    pathlib.Path("what would be written"), 3, fields, {}, 32, 0
  )
  back = gguf.build(header)
  special = " ".join(map(str, tokenizer.all_special_tokens))
  return all(
    back.backend_tokenizer.encode(text, add_special_tokens=False).ids
    == tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    for text in (_PROBE, special)
  )
