# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Students for other programs: Hugging Face directories and GGUF files."""

import os
import pathlib
import shutil
import tempfile
from typing import Literal

from jdistill import (
  gguf_file,
  model_card,
  pretrained,
  refs,
  tokenizers,
  types,
  workdir,
)
from jdistill.models import weights
from jdistill.models.decoder import DecoderConfig
from jdistill.tokenizers.gguf_fields import gguf_fields
from jdistill.types import UserError

Format = Literal["hf", "gguf"]
Dtype = Literal["float32", "bfloat16", "float16"]
Kind = Literal["f32", "f16", "q8_0"]


def export(
  ref: str,
  to: str | os.PathLike[str],
  *,
  format: Format = "hf",
  dtype: Dtype = "float32",
  kind: Kind = "f16",
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a model, with its tokenizer, where other programs read it.

  A Hugging Face directory gets a model card: of a run's student with the
  teacher, method, data, steps and held-out figures.

  The target appears whole or not at all: everything is written beside it and
  then renamed.

  Args:
    ref: a run (`RUN`, `RUN@best`, `RUN@STEP`) or any other model reference.
    to: the directory; for gguf the file, or a directory to put it in.
    format: `hf` for transformers, vLLM and their like; `gguf` for llama.cpp.
    dtype: of the weights in a Hugging Face directory.
    kind: how a GGUF file stores matrices.
    overwrite: replaces an earlier export.
  Returns: the directory or file.
  Raises: UserError if the target holds something else, if no other program
    computes what the model does, or if its tokenizer cannot be said in GGUF.
  """
  found = pretrained.find(ref)
  config = found.architecture
  if not isinstance(config, DecoderConfig):
    raise UserError(
      f"{ref} is a {type(config).__name__}; only decoder language models are"
      " exported (its weights are an Orbax checkpoint already)"
    )
  target = pathlib.Path(to).expanduser().absolute()
  if format == "gguf" and target.suffix.lower() != ".gguf":
    name = found.location.path.name.removesuffix(".gguf")
    target = target / f"{name}.gguf"
  _check_target(target, format, overwrite)
  workdir.check_place(target, "--to")
  target.parent.mkdir(parents=True, exist_ok=True)
  scratch = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
  )
  try:
    part = scratch / target.name
    if format == "hf":
      _write_directory(found, config, part, dtype)
    else:
      fields = _tokenizer_fields(found.location, config.vocab_size)
      weights.save_gguf(part, config, found.params(), fields, kind=kind)
    if target.exists():
      target.rename(scratch / "replaced")
    part.rename(target)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
  return target


def _write_directory(
  found: pretrained.Found,
  config: DecoderConfig,
  directory: pathlib.Path,
  dtype: Dtype,
) -> None:
  tokenizer = tokenizers.load(found.location)
  ids = ("bos_token_id", "eos_token_id", "pad_token_id")
  params: types.PyTree = found.params(dtype=dtype)
  weights.save_huggingface(
    directory,
    config,
    params,
    special_ids={name: getattr(tokenizer, name) for name in ids},
  )
  tokenizers.save(tokenizer, directory)
  model_card.make(found, dtype=dtype).save(directory / "README.md")


def _tokenizer_fields(location: refs.Located, vocab_size: int):
  """The file's own fields where the model is one, else the tokenizer's."""
  if location.kind == "gguf":
    return gguf_file.read_header(location.path).metadata
  return gguf_fields(tokenizers.load(location), vocab_size)


def _check_target(
  target: pathlib.Path, format: Format, overwrite: bool
) -> None:
  """Refuses to replace anything that no export has written."""
  if not target.exists():
    return
  if format == "gguf":
    if target.is_dir():
      raise UserError(f"{target} is a directory; expected a file")
  elif not target.is_dir():
    raise UserError(f"{target} is a file; expected a directory")
  elif not any(target.iterdir()):
    return
  elif not _is_export(target):
    raise UserError(
      f"{target} holds other files and no exported model; choose an empty or"
      " new directory"
    )
  if not overwrite:
    raise UserError(
      f"{target} exists already; choose another place or say --overwrite"
    )


def _is_export(directory: pathlib.Path) -> bool:
  names = {path.name for path in directory.iterdir()}
  return "generation_config.json" in names and any(
    name.endswith(".safetensors") for name in names
  )
