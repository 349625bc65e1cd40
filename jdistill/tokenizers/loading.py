# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Loads and saves tokenizers."""

import json
import os
import pathlib
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from jdistill import gguf_file, pointers, refs
from jdistill.tokenizers import byte, gguf, library
from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

RUN_DIRECTORY = "tokenizer"
"""Where a run directory keeps its tokenizer."""

_VOCABULARIES = ("tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")


def load(
  source: str | os.PathLike[str] | refs.Located,
) -> "PreTrainedTokenizerFast":
  """Loads the tokenizer that comes with a model.

  Padding and truncation that a file has built in are taken out: they would
  silently cut documents.

  Args:
    source: a model reference, what `refs.locate` made of it, a directory with
      a tokenizer alone, or "bytes", one token for each byte.
  Returns: a fast tokenizer, with the model's chat template if it has one.
  Raises:
    UserError: there is none, or it cannot be read.
  """
  source = locate(source)
  match source.kind:
    case "gguf":
      return gguf.build(gguf_file.read_header(source.path))
    case "run":
      return _from_directory(source.path / RUN_DIRECTORY)
    case "huggingface":
      return _from_directory(source.path)
    case "bytes":
      return byte.build()
    case _:
      what = "an Orbax checkpoint" if source.kind == "orbax" else "it"
      raise UserError(
        f"{source.ref}: {what} has no tokenizer; name a model whose tokenizer"
        " it uses"
      )


def locate(
  source: str | os.PathLike[str] | refs.Located,
  *,
  beside: pathlib.Path | None = None,
) -> refs.Located:
  """Finds what `load` would load; it may have no tokenizer after all.

  Args:
    source: as for `load`.
    beside: the directory of the run that a reference is in the config of.
  """
  if isinstance(source, refs.Located):
    return source
  if source == byte.BYTES:
    return refs.Located(byte.BYTES, "bytes", pathlib.Path(), name=byte.BYTES)
  path = pathlib.Path(source).expanduser()
  alone = not (path / "config.json").is_file()
  if alone and (path / "tokenizer.json").is_file():
    return refs.Located(os.fspath(source), "huggingface", path)
  return refs.locate(os.fspath(source), beside=beside)


def save(
  tokenizer: "PreTrainedTokenizerFast", directory: str | os.PathLike[str]
) -> None:
  """Saves a tokenizer so that transformers loads it with the same ids.

  Args:
    tokenizer: from `load`.
    directory: made if need be; a tokenizer in it is replaced.
  """
  tokenizer.save_pretrained(os.fspath(directory))


def _from_directory(path: pathlib.Path) -> "PreTrainedTokenizerFast":
  if not path.is_dir():
    raise UserError(f"no tokenizer: {path} is not a directory")
  with tempfile.TemporaryDirectory() as scratch:
    fitted = _within_head(path, pathlib.Path(scratch))
    tokenizer = _read(path, fitted or path)
  tokenizer.name_or_path = str(path)
  tokenizer.backend_tokenizer.no_padding()
  tokenizer.backend_tokenizer.no_truncation()
  tokenizer.model_max_length = int(1e30)
  for option in ("max_length", "stride", "truncation_strategy"):
    tokenizer.init_kwargs.pop(option, None)
  return tokenizer


def _read(named: pathlib.Path, path: pathlib.Path) -> Any:
  """Has transformers read a directory; `named` is the one to complain of."""
  transformers = library.transformers()
  if (path / "tokenizer.json").is_file():
    reader = transformers.PreTrainedTokenizerFast
  elif any((path / name).is_file() for name in _VOCABULARIES):
    reader = transformers.AutoTokenizer
  else:
    raise UserError(
      f"{named} has no tokenizer: none of tokenizer.json,"
      f" {', '.join(_VOCABULARIES)}"
    )
  for name in _CONFIGS:
    _json(path / name)
  try:
    tokenizer = reader.from_pretrained(str(path), local_files_only=True)
  # The tokenizers library raises bare Exception for a damaged file.
  except Exception as error:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f"{named}: its tokenizer, tokenizer.json and what is beside it, cannot be"
      f" read: {reason[0]}"
    ) from None
  if not tokenizer.is_fast:
    raise UserError(
      f"{named}: {type(tokenizer).__name__} is a tokenizer in Python; a"
      " tokenizer.json is needed"
    )
  return tokenizer


def _within_head(
  path: pathlib.Path, scratch: pathlib.Path
) -> pathlib.Path | None:
  """A copy of a tokenizer without special tokens that the model lacks.

  The text models of a family may share the tokenizer of those that see images,
  whose placeholder token is one id beyond their heads (Gemma 3).

  Args:
    path: a directory with `config.json` and `tokenizer.json`.
    scratch: an empty directory.
  Returns: `scratch` with the copy, None where there is nothing to take out.
  """
  head = _head_size(path)
  tree = _json(path / "tokenizer.json")
  if head is None or not isinstance(tree, dict):
    return None
  added = tree.get("added_tokens") or []
  surplus = {t["content"] for t in added if t["special"] and t["id"] >= head}
  if not surplus:
    return None
  for name in ("chat_template.jinja", "generation_config.json"):
    if (path / name).is_file():
      shutil.copy(path / name, scratch)
  tree["added_tokens"] = [t for t in added if t["content"] not in surplus]
  (scratch / "tokenizer.json").write_text(json.dumps(tree), "utf-8")
  for name in _CONFIGS:
    if (config := _json(path / name)) is not None:
      config = _without(config, surplus)
      (scratch / name).write_text(json.dumps(config), "utf-8")
  return scratch


def _without(tree: Any, surplus: set[str]) -> Any:
  """JSON without the entries that stand for certain tokens."""

  def stands_for_one(value: Any) -> bool:
    if isinstance(value, dict):
      value = value.get("content")
    return isinstance(value, str) and value in surplus

  if isinstance(tree, dict):
    return {
      key: _without(value, surplus)
      for key, value in tree.items()
      if not stands_for_one(value)
    }
  if isinstance(tree, list):
    return [_without(v, surplus) for v in tree if not stands_for_one(v)]
  return tree


def _head_size(path: pathlib.Path) -> int | None:
  config = _json(path / "config.json")
  if not isinstance(config, dict):
    return None
  text = config.get("text_config")
  size = config.get("vocab_size") or (text or {}).get("vocab_size")
  return size if isinstance(size, int) else None


def _json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    return None
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f"{path}: not valid JSON: {error}{pointers.hint(path)}"
    ) from None
