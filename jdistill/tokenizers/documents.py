# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Text to ids, and how many bytes of text each id stands for."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SPACE = "\u2581"  # how SentencePiece writes a space


def adds_bos(tokenizer: "PreTrainedTokenizerFast") -> bool:
  """Whether the tokenizer by itself begins a text with BOS."""
  ids = tokenizer.backend_tokenizer.encode("a").ids
  return bool(ids) and ids[0] == tokenizer.bos_token_id


def adds_eos(tokenizer: "PreTrainedTokenizerFast") -> bool:
  """Whether the tokenizer by itself ends a text with EOS."""
  ids = tokenizer.backend_tokenizer.encode("a").ids
  return bool(ids) and ids[-1] == tokenizer.eos_token_id


def encode_documents(
  tokenizer: "PreTrainedTokenizerFast",
  texts: Sequence[str],
  *,
  add_bos: bool | None = None,
  add_eos: bool | None = None,
) -> list[np.ndarray]:
  """Encodes texts, in parallel over the cores.

  Args:
    tokenizer: from `load`.
    texts: documents. A special token spelled out in a text becomes that token,
      as it does in transformers.
    add_bos: whether each begins with BOS; None does as the tokenizer does.
    add_eos: whether each ends with EOS; None does as the tokenizer does.
  Returns: int32 [number of tokens] for each text.
  Raises:
    UserError: BOS or EOS is asked for and the tokenizer has none, or a text is
      not valid Unicode.
  """
  add_bos = adds_bos(tokenizer) if add_bos is None else add_bos
  add_eos = adds_eos(tokenizer) if add_eos is None else add_eos
  before = [_special(tokenizer, "bos")] if add_bos else []
  after = [_special(tokenizer, "eos")] if add_eos else []
  try:
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(
      list(texts), add_special_tokens=False
    )
  except (TypeError, UnicodeEncodeError):
    raise _not_text(texts) from None
  return [np.array([*before, *e.ids, *after], np.int32) for e in encoded]


def token_pieces(tokenizer: "PreTrainedTokenizerFast") -> list[bytes]:
  """The UTF-8 text that each id stands for; none for special tokens.

  One after another they give a text back, but for what a normaliser changed and
  for the space that SentencePiece's kind puts before a text.

  Args:
    tokenizer: byte-level BPE, or SentencePiece's kind.
  Returns: for each id up to the largest its bytes, which may be a part of a
    character.
  Raises:
    UserError: the tokenizer loses text (WordPiece), so that bytes of tokens
      say nothing about bytes of text.
  """
  kinds = set(_decoder_kinds(tokenizer))
  vocabulary = tokenizer.get_vocab()
  pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
  if "ByteLevel" in kinds:
    alphabet = byte_alphabet()
    for token, index in vocabulary.items():
      if alphabet.keys() >= set(token):  # a character stands for a byte
        pieces[index] = bytes(alphabet[c] for c in token)
      else:
        pieces[index] = token.encode()
  elif kinds & {"ByteFallback", "Metaspace", "Replace"}:
    for token, index in vocabulary.items():
      if _BYTE.fullmatch(token):
        pieces[index] = bytes([int(token[3:5], 16)])
      else:
        pieces[index] = token.replace(_SPACE, " ").encode()
  else:
    raise UserError(
      f"tokenizer {tokenizer.name_or_path or '(unnamed)'} does not keep all"
      f" bytes of a text (decoder: {', '.join(sorted(kinds)) or 'none'}); bits"
      " per byte, and alignment with another tokenizer, need byte-level BPE or"
      " SentencePiece BPE"
    )
  for index, token in tokenizer.added_tokens_decoder.items():
    pieces[index] = b"" if token.special else token.content.encode()
  for index in tokenizer.all_special_ids:
    pieces[index] = b""
  return pieces


def byte_alphabet() -> dict[str, int]:
  """The character by which byte-level BPE writes each of the 256 bytes."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in plain]
  shifted = {chr(256 + n): byte for n, byte in enumerate(others)}
  return {chr(byte): byte for byte in plain} | shifted


def token_bytes(tokenizer: "PreTrainedTokenizerFast") -> np.ndarray:
  """How many bytes of UTF-8 text each token stands for; 0 for special tokens.

  Args:
    tokenizer: as for `token_pieces`.
  Returns: int32 [V], V one more than the largest id.
  Raises: UserError as `token_pieces`.
  """
  return np.array([len(p) for p in token_pieces(tokenizer)], np.int32)


def num_bytes(
  tokenizer: "PreTrainedTokenizerFast", ids: Sequence[int] | np.ndarray
) -> int:
  """Bytes of UTF-8 text that a document's ids stand for.

  The space that SentencePiece's kind puts before a text is not counted.

  Args:
    tokenizer: as for `token_bytes`; for many documents use its table.
    ids: [number of tokens] of one document, from its beginning.
  """
  table = token_bytes(tokenizer)
  ids = np.asarray(ids, np.int64)
  ids = ids[(ids >= 0) & (ids < len(table))]
  counted = ids[table[ids] > 0]
  total = int(table[counted].sum())
  if len(counted) and prepends_space(tokenizer):
    first = str(tokenizer.convert_ids_to_tokens(int(counted[0])))
    total -= first.startswith(_SPACE)
  return total


def _special(tokenizer: "PreTrainedTokenizerFast", name: str) -> int:
  index = getattr(tokenizer, f"{name}_token_id")
  if index is None:
    raise UserError(
      f"tokenizer {tokenizer.name_or_path or '(unnamed)'} has no"
      f" {name.upper()} token; say add_{name}=False"
    )
  return index


def _not_text(texts: Sequence[Any]) -> UserError:
  """Names the document that the tokenizer could not take."""
  for number, text in enumerate(texts):
    if not isinstance(text, str):
      return UserError(
        f"document {number} is {type(text).__name__}, expected text"
      )
    try:
      text.encode()
    except UnicodeEncodeError as error:
      return UserError(
        f"document {number} is not valid Unicode: character {error.start} is"
        f" {text[error.start]!r}"
      )
  return UserError("a document could not be encoded")


def _parts(component: Any) -> Iterator[dict[str, Any]]:
  """A normalizer's, pre-tokenizer's or decoder's parts, as JSON."""
  if component is None:
    return
  tree = json.loads(component.__getstate__())
  nested = ("decoders", "normalizers", "pretokenizers")
  inner = [part for key in nested for part in tree.get(key, ())]
  yield from inner or [tree]


def _decoder_kinds(tokenizer: "PreTrainedTokenizerFast") -> Iterator[str]:
  for part in _parts(tokenizer.backend_tokenizer.decoder):
    # Another replacement than that of the space sign says nothing.
    if part["type"] != "Replace" or part["pattern"] == {"String": _SPACE}:
      yield part["type"]


def prepends_space(tokenizer: "PreTrainedTokenizerFast") -> bool:
  """Whether a space comes before a text that is not the text's own."""
  backend = tokenizer.backend_tokenizer
  for component in (backend.normalizer, backend.pre_tokenizer):
    for part in _parts(component):
      scheme = part.get("prepend_scheme", "never")
      if part["type"] == "Prepend" or scheme != "never":
        return True
  return False
