# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How much a draft helps: acceptance, tokens per pass, seconds."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jdistill import types
from jdistill.models.base import Architecture
from jdistill.sampling import memory
from jdistill.sampling.generate import answers, ends_of
from jdistill.sampling.settings import Sampling
from jdistill.sampling.speculative import costs as costs_lib
from jdistill.sampling.speculative.costs import Costs
from jdistill.sampling.speculative.drafts import Draft
from jdistill.sampling.speculative.generation import (
  Counts,
  Speculated,
  prepared,
  run,
)
from jdistill.sampling.speculative.tree import Shape, Tree


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds for each token of a text, prompts included.

  Attributes:
    plain: by the target alone.
    speculative: with the draft.
    speedup: median over repeats of the ratio within a repeat.
    costs: of the parts.
  """

  plain: float
  speculative: float
  speedup: float
  costs: Costs


@dataclasses.dataclass(frozen=True)
class Measured:
  """What one draft is worth to one target.

  Entry d of `acceptance` and `expected` is of guesses at depth d + 1 below the
  newest token, given that all before were accepted; None where none was asked.

  Attributes:
    exact: whether the target's distribution is kept (lenience 1).
    prompts: how many.
    tokens: written.
    passes: of the target over guesses.
    acceptance: share of places where a guess was accepted.
    expected: mean of 1 - TVD(p, q) there; at temperature 0 whether the
      likeliest tokens are the same. With one guess per place `acceptance` is
      this in expectation; more guesses are accepted more often.
    rate: accepted of asked, over all depths.
    expected_rate: the mean of 1 - TVD over all depths.
    tokens_per_pass: what a pass yields, the target's own token included.
    accepted_per_pass: accepted guesses alone.
    close: tokens where rounding decides between the likeliest two.
    different: prompts whose greedy text is not the one that the target writes
      alone; None at other temperatures.
    timing: None if it was not asked for.
  """

  exact: bool
  prompts: int
  tokens: int
  passes: int
  acceptance: tuple[float | None, ...]
  expected: tuple[float | None, ...]
  rate: float | None
  expected_rate: float | None
  tokens_per_pass: float | None
  accepted_per_pass: float | None
  close: int
  different: int | None
  timing: Timing | None

  @property
  def predicted(self) -> float | None:
    """Speed-up by the costs of the parts and the tokens per pass found."""
    if self.timing is None or self.tokens_per_pass is None:
      return None
    return self.timing.costs.speedup(self.tokens_per_pass)

  @property
  def predicted_memory_bound(self) -> float | None:
    """The same if a pass over a block cost what one over a token does."""
    if self.timing is None or self.tokens_per_pass is None:
      return None
    return self.timing.costs.speedup(self.tokens_per_pass, block=False)

  def to_json(self) -> dict[str, Any]:
    """All of it, for one line of JSON."""
    found = dataclasses.asdict(self)
    if self.timing is not None:
      costs = self.timing.costs
      found["timing"]["costs"] |= {
        "draft_ratio": costs.draft_ratio,
        "block_ratio": costs.block_ratio,
      }
      found["timing"]["predicted"] = self.predicted
      found["timing"]["predicted_memory_bound"] = self.predicted_memory_bound
    return found


def measure(
  target: Architecture,
  draft: Draft,
  params: types.PyTree,
  draft_params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  max_new_tokens: int = 64,
  draft_tokens: int = 4,
  tree: Shape | None = None,
  temperature: float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  lenience: float = 1.0,
  key: jax.Array | None = None,
  eos_id: int | Sequence[int] | None = None,
  batch_size: int = 1,
  repeats: int = 3,
) -> Measured:
  """Lets the target write after each prompt with the draft and without.

  Prefixes are thus what the target itself writes. Both ways are compiled and
  run once before they take turns at being timed.

  Args: those of `generate`, and
    batch_size: prompts that are continued at once.
    repeats: timed turns of each way; 0 measures acceptance alone.
  """
  if not len(prompts) or batch_size < 1:
    raise types.UserError(
      f"speculative: found {len(prompts)} prompts and batch_size={batch_size},"
      " expected at least 1 of each"
    )
  key = jax.random.key(0) if key is None else key
  # Once for all calls, which would do so each.
  params = memory.of(target).settled(params)
  draft_params = draft.settled(draft_params)
  batches = [
    range(begin, min(begin + batch_size, len(prompts)))
    for begin in range(0, len(prompts), batch_size)
  ]
  sampling = Sampling(
    max_new_tokens=max_new_tokens,
    temperature=float(temperature),
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
  )
  shape = Tree.chain(draft_tokens) if tree is None else tree
  ends = ends_of(eos_id)

  def ready(rows: range):
    return prepared(
      target,
      draft,
      params,
      draft_params,
      [prompts[row] for row in rows],
      sampling=sampling,
      shape=shape,
      lenience=lenience,
      key=key,
      ends=ends,
      row_ids=list(rows),
    )

  def helped(rows: range) -> Speculated:
    return run(*ready(rows))

  def alone(rows: range) -> list[np.ndarray]:
    found = answers(
      target,
      params,
      [prompts[row] for row in rows],
      sampling,
      key=key,
      ends=ends,
      row_ids=list(rows),
    )
    return [answer.tokens for answer in found]

  found = [helped(rows) for rows in batches]
  counts = [one.counts for one in found]
  different = None
  if sampling.greedy or repeats:
    texts = [text for rows in batches for text in alone(rows)]
    if sampling.greedy:
      ours = [text for one in found for text in one.texts]
      pairs = zip(texts, ours, strict=True)
      different = sum(not np.array_equal(a, b) for a, b in pairs)
  timing = None
  if repeats:
    # No batch is larger than the first.
    costs = costs_lib.measured(*ready(batches[0]), repeats=repeats)
    timing = _timed(batches, alone, helped, costs, repeats)
  return summary(
    counts, exact=lenience == 1, different=different, timing=timing
  )


def _timed(
  batches: Sequence[range],
  alone: Callable[[range], Sequence[np.ndarray]],
  helped: Callable[[range], Any],
  costs: Costs,
  repeats: int,
) -> Timing:
  """Both ways in turns, batch by batch, the first of a pair alternating."""
  rows = []
  for repeat in range(repeats):
    spent, tokens = [0.0, 0.0], [0, 0]
    for number, batch in enumerate(batches):
      ways = (0, 1) if (repeat + number) % 2 else (1, 0)
      for way in ways:
        begin = time.perf_counter()
        texts = helped(batch).texts if way else alone(batch)
        spent[way] += time.perf_counter() - begin
        tokens[way] += sum(map(len, texts))
    rows.append([s / t for s, t in zip(spent, tokens, strict=True)])
  return Timing(
    statistics.median(row[0] for row in rows),
    statistics.median(row[1] for row in rows),
    statistics.median(row[0] / row[1] for row in rows),
    costs,
  )


def summary(
  counts: Sequence[Counts],
  *,
  exact: bool = True,
  different: int | None = None,
  timing: Timing | None = None,
) -> Measured:
  """Means of counts of like trees; the rest is handed on."""
  asked = np.sum([one.asked for one in counts], axis=0)
  accepted = np.sum([one.accepted for one in counts], axis=0)
  overlap = np.sum([one.overlap for one in counts], axis=0)
  tokens = sum(one.tokens for one in counts)
  passes = sum(one.passes for one in counts)
  prompts = sum(one.texts for one in counts)

  def share(part, whole) -> float | None:
    return float(part / whole) if whole else None

  return Measured(
    exact=exact,
    prompts=prompts,
    tokens=tokens,
    passes=passes,
    acceptance=tuple(map(share, accepted, asked)),
    expected=tuple(map(share, overlap, asked)),
    rate=share(accepted.sum(), asked.sum()),
    expected_rate=share(overlap.sum(), asked.sum()),
    # The first token of each text is drawn from the prompt's pass.
    tokens_per_pass=share(tokens - prompts, passes),
    accepted_per_pass=share(accepted.sum(), passes),
    close=sum(one.close for one in counts),
    different=different,
    timing=timing,
  )


def lines(found: Measured) -> list[str]:
  """The figures in words."""

  def shown(values: Sequence[float | None]) -> str:
    return " ".join("-" if v is None else f"{v:.3f}" for v in values)

  kind = "exact" if found.exact else "NOT exact: lenience changes what is drawn"
  out = [
    f"{found.tokens} tokens after {found.prompts} prompts, {found.passes}"
    f" target passes over guesses ({kind})",
    f"accepted by depth   {shown(found.acceptance)}",
    f"1 - TVD by depth    {shown(found.expected)}",
    f"acceptance {shown([found.rate])}, 1 - TVD {shown([found.expected_rate])}",
    f"tokens per target pass {shown([found.tokens_per_pass])}, of which"
    f" guesses {shown([found.accepted_per_pass])}",
    f"tokens with a rival within 1e-4 nats: {found.close}",
  ]
  if found.different is not None:
    out.append(f"texts unlike plain greedy decoding: {found.different}")
  if found.timing is not None:
    timing, costs = found.timing, found.timing.costs
    out += [
      f"ms per token: {1e3 * timing.plain:.2f} plain,"
      f" {1e3 * timing.speculative:.2f} with the draft:"
      f" {timing.speedup:.2f} times as fast",
      f"a draft pass costs {costs.draft_ratio:.3f} target passes, a target"
      f" pass over a block {costs.block_ratio:.3f}",
      f"that predicts {found.predicted:.2f}, and"
      f" {found.predicted_memory_bound:.2f} if blocks cost what tokens do",
    ]
  return out
