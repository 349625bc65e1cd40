# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts for speculative decoding, from references: what each is worth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from jdistill import completions, evaluate, pretrained, tokenizers, types
from jdistill.config import Dtype
from jdistill.models import DecoderConfig, FeatureDraft
from jdistill.sampling import speculative


@dataclasses.dataclass(frozen=True)
class Options:
  """How drafts are measured; see `speculative.measure`.

  Attributes:
    draft_tokens: guesses in a row for each pass of the target.
    children: a tree instead: how many guesses hang from a token at each depth.
    max_new_tokens: of each text.
    temperature: 0 for greedy decoding.
    top_k: draws among so many likeliest tokens only.
    top_p: draws among the likeliest tokens of this share only.
    lenience: below 1 it is no longer the target's distribution.
    batch_size: prompts continued at once.
    repeats: timed turns; 0 measures acceptance alone.
    max_prompts: stops after so many.
    chat: puts prompts into the chat template.
    seed: of the draws.
    dtype: of weights and computation.
  """

  draft_tokens: int = 4
  children: tuple[int, ...] = ()
  max_new_tokens: int = 64
  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None
  lenience: float = 1.0
  batch_size: int = 1
  repeats: int = 3
  max_prompts: int | None = None
  chat: bool = False
  seed: int = 0
  dtype: Dtype = "float32"


def speculate(
  target: str,
  drafts: Sequence[str],
  prompts: Sequence[completions.Prompt],
  options: Options | None = None,
) -> list[dict[str, Any]]:
  """Measures drafts on the same prompts of the same target.

  Args:
    target: a model reference.
    drafts: model references.
    prompts: `completions.read` of a file that neither has learned from.
    options: see `Options`.
  Returns: a row for each draft: `target`, `draft`, and what
    `speculative.Measured.to_json` says.
  Raises: UserError for references that cannot be read and for drafts of
    another vocabulary.
  """
  options = options or Options()
  if options.max_prompts is not None and options.max_prompts < 1:
    raise types.UserError(
      f"max_prompts is {options.max_prompts}; expected at least 1"
    )
  found = pretrained.find(target, dtype=options.dtype)
  tokenizer = tokenizers.load(found.location)
  tokenizers.check_head(tokenizer, found.architecture.vocab_size)
  ids = [
    prompt.encode(tokenizer, chat=options.chat)
    for prompt in prompts[: options.max_prompts]
  ]
  params = found.params(dtype=options.dtype)
  tree = None
  if options.children:
    tree = speculative.Tree.branching(options.children)
  rows = []
  for ref in drafts:
    draft, draft_params = load_draft(
      ref, found, params, tokenizer, options.dtype
    )
    measured = speculative.measure(
      found.architecture,
      draft,
      params,
      draft_params,
      ids,
      max_new_tokens=options.max_new_tokens,
      draft_tokens=options.draft_tokens,
      tree=tree,
      temperature=options.temperature,
      top_k=options.top_k,
      top_p=options.top_p,
      lenience=options.lenience,
      key=jax.random.key(options.seed),
      eos_id=evaluate.end_ids(tokenizer, found.location),
      batch_size=options.batch_size,
      repeats=options.repeats,
    )
    rows.append({"target": target, "draft": ref} | measured.to_json())
  return rows


def load_draft(
  ref: str,
  target: pretrained.Found,
  params: types.PyTree,
  tokenizer: Any,
  dtype: str,
) -> tuple[speculative.Draft, types.PyTree]:
  """A model as draft of another, and its parameters.

  Args:
    ref: a model reference; of a run its student may be a `FeatureDraft`.
    target: whose draft it is.
    params: the target's, of which a `FeatureDraft` shares what it has not.
    tokenizer: the target's.
    dtype: of weights and computation.
  Raises: UserError if its ids do not mean what the target's do, or if it goes
    by features that this target does not have.
  """
  found = pretrained.find(ref, dtype=dtype)
  if found.location.has_tokenizer:
    difference = tokenizers.vocabulary_difference(
      tokenizer, tokenizers.load(found.location)
    )
    if difference:
      raise types.UserError(
        f"the draft {ref} and its target {target.ref} have different"
        f" vocabularies: {difference}; a draft must guess the target's tokens"
      )
  own = found.architecture
  if not isinstance(own, FeatureDraft):
    return speculative.ModelDraft(own), found.params(dtype=dtype)
  shape = target.architecture
  if not isinstance(shape, DecoderConfig):
    raise types.UserError(
      f"the draft {ref} goes by the features of a decoder, and its target"
      f" {target.ref} is a {type(shape).__name__}"
    )
  draft = speculative.FeatureDraft(own)
  return draft, draft.params(found.params(dtype=dtype), shape, params)


def table(rows: Sequence[dict[str, Any]]):
  """A rich table with a column for each draft."""
  from rich.table import Table

  found = Table()
  found.add_column("draft", style="dim", no_wrap=True)
  columns = []
  for row in rows:
    found.add_column(row["draft"], justify="right", overflow="fold")
    timing = row["timing"] or {"costs": {}}
    costs = timing["costs"]
    values = {
      "accepted": row["rate"],
      "1 - TVD": row["expected_rate"],
      "tokens a pass": row["tokens_per_pass"],
      "speed-up": timing.get("speedup"),
      "predicted": timing.get("predicted"),
      "draft pass / target pass": costs.get("draft_ratio"),
      "block pass / target pass": costs.get("block_ratio"),
    }
    shown = {k: "-" if v is None else f"{v:.3f}" for k, v in values.items()}
    columns.append(shown | {"tokens written": f"{row['tokens']:,}"})
  for name in columns[0]:
    found.add_row(name, *(column[name] for column in columns))
  return found
