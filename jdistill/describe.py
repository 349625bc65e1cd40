# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a model reference resolves to, for people and programs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from jdistill import gguf_file, models, pretrained, refs, tokenizers, workdir
from jdistill.models.base import num_params
from jdistill.types import UserError

if TYPE_CHECKING:
  from rich.table import Table


def model(ref: str) -> dict[str, Any]:
  """Facts of one model; no weights are read.

  Args:
    ref: a model reference.
  Returns: `model`, `kind`, `family`, `layers`, `width`, `mlp_width`, `heads`,
    `kv_heads`, `head_dim`, `vocabulary`, `context`, `tied`, `experts`,
    `experts_per_token`, `expert_width`, `parameters`, `active_parameters` (of
    one token), `bytes` (of the files or checkpoint), `tokenizer` (its number of
    tokens, or None), `chat_template`, `licence` and `path`; None where unknown.
  Raises: UserError for what cannot be found or read.
  """
  found = pretrained.find(ref)
  config, location = found.architecture, found.location
  shapes, mixture = config.shapes(), getattr(config, "mixture", None)
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
    "experts": None if mixture is None else mixture.num_experts,
    "experts_per_token": None if mixture is None else mixture.per_token,
    "expert_width": None if mixture is None else mixture.width,
    "parameters": num_params(shapes),
    "active_parameters": num_params(shapes) - _idle(shapes, mixture),
    "bytes": _bytes(location),
    "tokenizer": tokens,
    "chat_template": chat,
    "licence": location.licence,
    "path": workdir.name(location.path),
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
  if key in ("parameters", "active_parameters"):
    return f"{value / 1e6:,.1f} M"
  if key == "bytes":
    return f"{value / 1e6:,.1f} MB"
  if key == "tokenizer":
    return f"{value:,} tokens"
  return f"{value:,}" if isinstance(value, int) else str(value)


def _idle(shapes: Any, mixture: models.Mixture | None) -> int:
  """Parameters of the experts that a token does not take."""
  if mixture is None:
    return 0
  experts = sum(
    leaf.size
    for name, layers in shapes.items()
    if name.startswith("segment_") and "router" in layers["mlp"]
    for leaf in jax.tree.leaves(
      {k: v for k, v in layers["mlp"].items() if k != "router"}
    )
  )
  return experts - experts // mixture.num_experts * mixture.per_token


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
    saved = workdir.checkpoints(path) / str(pretrained.run_step(location))
    return sum(file.stat().length for file in workdir.under(saved))
  pattern = "*.safetensors" if location.kind == "huggingface" else "**/*"
  return sum(f.stat().st_size for f in path.glob(pattern) if f.is_file())
