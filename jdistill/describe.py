# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a model reference resolves to, for people and programs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jdistill import gguf_file, pretrained, refs, tokenizers
from jdistill.models.base import num_params
from jdistill.types import UserError

if TYPE_CHECKING:
  from rich.table import Table


def model(ref: str) -> dict[str, Any]:
  """Facts of one model; no weights are read.

  Args:
    ref: a model reference.
  Returns: `model`, `kind`, `family`, `layers`, `width`, `mlp_width`, `heads`,
    `kv_heads`, `head_dim`, `vocabulary`, `context`, `tied`, `parameters`,
    `bytes` (of the files or checkpoint), `tokenizer` (its number of tokens, or
    None), `chat_template`, `licence` and `path`; None where unknown.
  Raises: UserError for what cannot be found or read.
  """
  found = pretrained.find(ref)
  config, location = found.architecture, found.location
  tokens, chat = _tokenizer(location)
  return {
    "model": ref,
    "kind": location.kind,
    "family": _family(found),
    "layers": getattr(config, "num_layers", None),
    "width": getattr(config, "width", None),
    "mlp_width": getattr(config, "mlp_width", None),
    "heads": getattr(config, "num_heads", None),
    "kv_heads": getattr(config, "num_kv_heads", None),
    "head_dim": getattr(config, "head_dim", None),
    "vocabulary": config.vocab_size,
    "context": getattr(config, "context_length", None),
    "tied": getattr(config, "tied", None),
    "parameters": num_params(config.shapes()),
    "bytes": _bytes(location),
    "tokenizer": tokens,
    "chat_template": chat,
    "licence": location.licence,
    "path": str(location.path),
  }


def table(rows: Sequence[dict[str, Any]]) -> "Table":
  """The facts of models beside each other, for a terminal."""
  from rich.table import Table

  made = Table(box=None, pad_edge=False, show_header=len(rows) > 1)
  made.add_column("", style="dim", no_wrap=True)
  for row in rows:
    made.add_column(row["model"], overflow="fold")
  for key in rows[0]:
    if key != "model" or len(rows) == 1:
      made.add_row(
        key.replace("_", " "), *(_shown(key, row[key]) for row in rows)
      )
  return made


def _shown(key: str, value: Any) -> str:
  if value is None:
    return "unknown" if key in ("licence", "bytes") else "-"
  if isinstance(value, bool):
    return "yes" if value else "no"
  if key == "parameters":
    return f"{value / 1e6:,.1f} M"
  if key == "bytes":
    return f"{value / 1e6:,.1f} MB"
  if key == "tokenizer":
    return f"{value:,} tokens"
  return f"{value:,}" if isinstance(value, int) else str(value)


def _family(found: pretrained.Found) -> str:
  """What the files call the architecture, else its class."""
  location = found.location
  if location.kind == "gguf":
    header = gguf_file.read_header(location.path)
    return str(header.metadata.get("general.architecture"))
  if location.kind == "huggingface":
    fields = json.loads((location.path / "config.json").read_text("utf-8"))
    return str(fields.get("model_type"))
  return type(found.architecture).__name__.removesuffix("Config").lower()


def _tokenizer(location: refs.Located) -> tuple[int | None, bool]:
  try:
    tokenizer = tokenizers.load(location)
  except UserError:  # a classifier, or a model that comes without
    return None, False
  return len(tokenizer), bool(tokenizer.chat_template)


def _bytes(location: refs.Located) -> int | None:
  path = location.path
  if path.is_file():
    return path.stat().st_size
  if location.kind == "run":
    path = path / "checkpoints" / str(pretrained.run_step(location))
  pattern = "*.safetensors" if location.kind == "huggingface" else "**/*"
  return sum(f.stat().st_size for f in path.glob(pattern) if f.is_file())
