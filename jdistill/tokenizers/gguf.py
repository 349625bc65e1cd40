# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Builds a tokenizer from what a GGUF file says of it.

Two kinds: byte-level BPE (`gpt2`: SmolLM2, Llama 3, Qwen) and SentencePiece's
BPE (`llama`: Gemma, Llama 2, Mistral). The file names its pre-tokenizer; the
regular expression belongs to the name and is not in the file.
"""

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from jdistill import gguf_file
from jdistill.tokenizers import library
from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_FILLER = re.compile(r"\[PAD\d+\]")
_SPACE = "\u2581"  # how SentencePiece writes a space

_DIGITS = "digits"  # each digit apart, then GPT-2's expression
_GPT2 = "gpt2"
_LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
  r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
  r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
  r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class _Splitter:
  """How text is cut before merging, and what goes with it."""

  pattern: str
  whole_words_first: bool = False  # a word in the vocabulary is not merged
  compose: bool = False  # Unicode NFC
  add_bos: bool = False


_SPLITTERS = {
  "smollm": _Splitter(_DIGITS),
  "starcoder": _Splitter(_DIGITS),
  "gpt-2": _Splitter(_GPT2),
  "olmo": _Splitter(_GPT2),
  "llama-bpe": _Splitter(_LLAMA3, whole_words_first=True, add_bos=True),
  "llama3": _Splitter(_LLAMA3, whole_words_first=True, add_bos=True),
  "llama-v3": _Splitter(_LLAMA3, whole_words_first=True, add_bos=True),
  "qwen2": _Splitter(_QWEN2, compose=True),
  "deepseek-r1-qwen": _Splitter(_QWEN2),
  "tekken": _Splitter(_TEKKEN, whole_words_first=True, add_bos=True),
}

PRE_TOKENIZERS = tuple(_SPLITTERS)
"""Values of `tokenizer.ggml.pre` that are read."""


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
  """The file's tokens, their types and scores, checked against each other."""

  tokens: list[str]
  types: np.ndarray
  scores: np.ndarray | None

  def of_type(self, kind: int) -> list[str]:
    return [self.tokens[i] for i in np.flatnonzero(self.types == kind)]


def build(header: gguf_file.Header) -> "PreTrainedTokenizerFast":
  """Builds the tokenizer that a GGUF file describes.

  Args:
    header: the file's header.
  Returns: a fast tokenizer with the file's special tokens, BOS and EOS flags
    and chat template.
  Raises:
    UserError: the file has no tokenizer, one of another kind, or a damaged one.
  """
  model = header.metadata.get("tokenizer.ggml.model")
  if model is None:
    raise UserError(f"{header.path}: this GGUF file has no tokenizer")
  vocabulary = _vocabulary(header)
  try:
    if model == "gpt2":
      splitter = _splitter(header)
      backend = _byte_level(header, vocabulary, splitter)
      add_bos = splitter.add_bos
    elif model == "llama":
      backend, add_bos = _sentencepiece(header, vocabulary), True
    else:
      raise UserError(
        f"{header.path}: tokenizer.ggml.model {model!r} is not supported;"
        " expected gpt2 (byte-level BPE) or llama (SentencePiece BPE)"
      )
    _add_tokens(backend, vocabulary)
    return _finish(header, vocabulary, backend, add_bos)
  except UserError:
    raise
  # The tokenizers library raises bare Exception for inconsistent merges.
  except Exception as error:
    raise UserError(
      f"{header.path}: its tokenizer cannot be built: {error}"
    ) from None


def _vocabulary(header: gguf_file.Header) -> _Vocabulary:
  def field(name: str) -> Any:
    return header.metadata.get(f"tokenizer.ggml.{name}")

  tokens, types, scores = field("tokens"), field("token_type"), field("scores")
  if not isinstance(tokens, list) or not all(
    isinstance(token, str) for token in tokens
  ):
    raise UserError(
      f"{header.path}: tokenizer.ggml.tokens is no list of strings"
    )
  if types is None:
    types = np.full(len(tokens), _NORMAL)
  for name, values in (("token_type", types), ("scores", scores)):
    if values is not None and np.shape(values) != (len(tokens),):
      raise UserError(
        f"{header.path}: tokenizer.ggml.{name} has {np.size(values)} entries"
        f" for {len(tokens)} tokens"
      )
  # Converters fill the vocabulary up to the padded size of the head.
  last = len(tokens)
  while last and _FILLER.fullmatch(tokens[last - 1]):
    last -= 1
  # Gemma's runs of spaces are written plainly, unlike in its own files.
  tokens = [
    _SPACE * len(token)
    if token.startswith("  ") and not token.strip(" ") and scores is not None
    else token
    for token in tokens[:last]
  ]
  if len(set(tokens)) != last:
    seen: set[str] = set()
    twice = next(t for t in tokens if t in seen or seen.add(t))
    raise UserError(f"{header.path}: token {twice!r} is there twice")
  scores = None if scores is None else np.asarray(scores)[:last]
  return _Vocabulary(tokens, np.asarray(types)[:last], scores)


def _splitter(header: gguf_file.Header) -> _Splitter:
  name = header.metadata.get("tokenizer.ggml.pre")
  if name not in _SPLITTERS:
    raise UserError(
      f"{header.path}: tokenizer.ggml.pre {name!r} is not known; expected one"
      f" of {', '.join(_SPLITTERS)}; take the tokenizer from the model's"
      " Hugging Face directory"
    )
  return _SPLITTERS[name]


def _byte_level(
  header: gguf_file.Header, vocabulary: _Vocabulary, splitter: _Splitter
) -> Any:
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  merges = header.metadata.get("tokenizer.ggml.merges")
  if not isinstance(merges, list):
    raise UserError(f"{header.path}: no tokenizer.ggml.merges")
  pairs = []
  for merge in merges:
    cut = merge.find(" ", 1)
    pairs.append((merge[:cut], merge[cut + 1 :]))
  backend = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(vocabulary.tokens)},
      merges=pairs,
      ignore_merges=splitter.whole_words_first,
    )
  )
  if splitter.compose:
    backend.normalizer = normalizers.NFC()
  if splitter.pattern in (_DIGITS, _GPT2):
    first = [pre_tokenizers.Digits(individual_digits=True)]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    first = first if splitter.pattern == _DIGITS else []
  else:
    pattern = tokenizers.Regex(splitter.pattern)
    first = [pre_tokenizers.Split(pattern, behavior="isolated")]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  backend.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
  backend.decoder = decoders.ByteLevel()
  return backend


def _sentencepiece(header: gguf_file.Header, vocabulary: _Vocabulary) -> Any:
  import tokenizers
  from tokenizers import decoders, models, normalizers

  if vocabulary.scores is None:
    raise UserError(f"{header.path}: no tokenizer.ggml.scores")
  unknown = vocabulary.of_type(_UNKNOWN)
  at = header.metadata.get("tokenizer.ggml.unknown_token_id")
  if at is not None:
    unknown = [vocabulary.tokens[_id(header, "unknown", at, vocabulary)]]
  backend = tokenizers.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(vocabulary.tokens)},
      merges=_merges(vocabulary),
      unk_token=unknown[0] if unknown else None,
      fuse_unk=True,
      byte_fallback=_BYTE in vocabulary.types,
    )
  )
  prefix = header.metadata.get("tokenizer.ggml.add_space_prefix", True)
  written: Any = normalizers.Replace(" ", _SPACE)
  read: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback()]
  read.append(decoders.Fuse())
  if prefix:
    written = normalizers.Sequence([normalizers.Prepend(_SPACE), written])
    read.append(decoders.Strip(" ", 1, 0))
  backend.normalizer = written
  backend.decoder = decoders.Sequence(read)
  return backend


def _merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
  """The merges that SentencePiece's scores amount to, first ones first.

  SentencePiece joins the pair whose *result* has the best score; so each token
  stands for all its cuts into two tokens. Runs of spaces are fixed symbols to
  it (user-defined, with no score that means anything): they come first.
  """
  assert vocabulary.scores is not None
  runs = [
    i
    for i in np.flatnonzero(vocabulary.types == _USER_DEFINED)
    if not vocabulary.tokens[i].strip(_SPACE)
  ]
  normal = np.flatnonzero(vocabulary.types == _NORMAL)
  best_first = np.argsort(-vocabulary.scores[normal], kind="stable")
  order = [*runs, *normal[best_first]]
  ids = {vocabulary.tokens[i]: int(i) for i in order}
  merges: list[tuple[str, str]] = []
  for index in order:
    token = vocabulary.tokens[index]
    cuts = [
      (ids[token[:k]], ids[token[k:]])
      for k in range(1, len(token))
      if token[:k] in ids and token[k:] in ids
    ]
    cuts.sort()
    merges += [(vocabulary.tokens[a], vocabulary.tokens[b]) for a, b in cuts]
  return merges


def _add_tokens(backend: Any, vocabulary: _Vocabulary) -> None:
  """Has control and user-defined tokens matched whole in the text."""
  from tokenizers import AddedToken

  control = {_CONTROL: True, _UNKNOWN: True, _USER_DEFINED: False}
  for kind, special in control.items():
    tokens = [
      AddedToken(token, normalized=False, special=special)
      for token in vocabulary.of_type(kind)
      if token.strip(_SPACE)
    ]
    if special:
      backend.add_special_tokens(tokens)
    else:
      backend.add_tokens(tokens)


def _id(
  header: gguf_file.Header, name: str, value: Any, vocabulary: _Vocabulary
) -> int:
  if not isinstance(value, int) or not 0 <= value < len(vocabulary.tokens):
    raise UserError(
      f"{header.path}: tokenizer.ggml.{name}_token_id {value!r} is not one of"
      f" its {len(vocabulary.tokens)} tokens"
    )
  return value


def _finish(
  header: gguf_file.Header,
  vocabulary: _Vocabulary,
  backend: Any,
  add_bos: bool,
) -> "PreTrainedTokenizerFast":
  def token(name: str) -> str | None:
    value = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
      return None
    return vocabulary.tokens[_id(header, name, value, vocabulary)]

  def flag(name: str, default: bool) -> bool:
    return bool(header.metadata.get(f"tokenizer.ggml.{name}", default))

  bos, eos = token("bos"), token("eos")
  tokenizer = library.transformers().PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token=bos,
    eos_token=eos,
    unk_token=token("unknown"),
    pad_token=token("padding"),
    add_bos_token=bos is not None and flag("add_bos_token", add_bos),
    add_eos_token=eos is not None and flag("add_eos_token", False),
    clean_up_tokenization_spaces=False,
  )
  template = header.metadata.get("tokenizer.chat_template")
  if isinstance(template, str):
    tokenizer.chat_template = template
  return tokenizer
