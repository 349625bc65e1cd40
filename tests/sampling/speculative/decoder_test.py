# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Decoders, whose caches hold guesses."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jdistill import sharding
from jdistill.models.spec import Mixture, Segment
from jdistill.sampling import generate, speculative
from jdistill.sampling.speculative.tree import BestTree, Tree

PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]]
SHAPES = {
  "chain": Tree.chain(3),
  "tree": Tree((0, 0, 0, 1, 1, 2, 4, 4)),
  "best": BestTree(guesses=7, width=3, depth=3),
}


def helped(lm, draft_params, prompts=PROMPTS, **settings):
  arch, params = lm
  settings = {"temperature": 0, "max_new_tokens": 20} | settings
  draft = settings.pop("draft", speculative.ModelDraft(arch))
  return speculative.generate(
    arch, draft, params, draft_params, prompts, **settings
  )


def alone(lm, prompts=PROMPTS, **settings):
  settings = {"temperature": 0, "max_new_tokens": 20} | settings
  return generate(*lm, prompts, **settings)


def assert_same(texts, others):
  assert [t.tolist() for t in texts] == [t.tolist() for t in others]


@pytest.mark.parametrize(
  "shape",
  [
    pytest.param(
      shape, id=name, marks=() if name == "tree" else pytest.mark.slow
    )
    for name, shape in SHAPES.items()
  ],
)
def test_greedy_text_is_the_targets_own(shape, lm, near):
  """Over a sliding window and soft caps; windows are shorter than texts."""
  expected = alone(lm)
  for draft_params in (near, lm[1]):
    found = helped(lm, draft_params, tree=shape)
    assert_same(found.texts, expected)
    counts = found.counts
    assert counts.tokens == 60
    # Every pass yields what it accepts and one more; the first token of a text
    # comes from its prompt, and what is beyond the text's end is not counted.
    assert counts.passes <= 57
    assert sum(counts.accepted) + counts.passes >= 57
  # The target as its own draft is always right.
  assert counts.accepted == counts.asked
  perfect = -(-19 // (shape.depth + 1)) * 3
  assert counts.passes == perfect or shape is SHAPES["best"]
  assert sum(helped(lm, near, tree=shape).counts.accepted) > 0


@pytest.mark.parametrize(
  "shape",
  [
    *(pytest.param(s, marks=pytest.mark.slow) for s in ("tree", "chain")),
    pytest.param("best", marks=pytest.mark.slow),
  ],
)
def test_greedy_text_with_a_penalty_is_the_targets_own(shape, lm, near):
  settings = {"repetition_penalty": 1.7, "max_new_tokens": 12}
  expected = alone(lm, **settings)
  assert [t.tolist() for t in expected] != [
    t.tolist() for t in alone(lm, max_new_tokens=12)
  ]
  found = helped(lm, near, tree=SHAPES[shape], **settings)
  assert_same(found.texts, expected)
  assert sum(found.counts.accepted) > 0


@pytest.mark.parametrize(
  "shape", [pytest.param(s, marks=pytest.mark.slow) for s in ("tree", "chain")]
)
def test_rows_are_the_same_in_any_company(shape, lm, near):
  settings = {"temperature": 1.0, "key": jax.random.key(4)}
  settings["tree"] = SHAPES[shape]
  together = helped(lm, near, **settings).texts
  for row, prompt in enumerate(PROMPTS):
    [text] = helped(lm, near, [prompt], row_ids=[row], **settings).texts
    assert text.tolist() == together[row].tolist()
  twice = helped(lm, near, [PROMPTS[0]] * 2, **settings).texts
  assert twice[0].tolist() != twice[1].tolist()


@pytest.mark.parametrize(
  "shape", [pytest.param(s, marks=pytest.mark.slow) for s in ("chain", "tree")]
)
def test_a_mesh_changes_nothing(shape, lm, near):
  mesh = sharding.make_mesh(sharding.MeshShape(data=2, fsdp=2, tensor=2))
  arch, params = lm
  places = sharding.param_shardings(arch.axes(), arch.shapes(), mesh)
  spread, draft = jax.device_put((params, near), (places, places))
  settings = {"temperature": 1.0, "key": jax.random.key(4)}
  settings["tree"] = SHAPES[shape]
  with jax.set_mesh(mesh):
    found = helped((arch, spread), draft, **settings)
  one = helped(lm, near, **settings)
  assert_same(found.texts, one.texts)
  assert found.counts.accepted == one.counts.accepted


@pytest.mark.slow
def test_experts_judge_trees(lm):
  arch = dataclasses.replace(
    lm[0],
    segments=(Segment.uniform(2, sparse=True),),
    experts=Mixture(4, 2, 12),
  )
  params = jax.jit(arch.init)(jax.random.key(0))
  params = jax.tree.map(lambda p: 3 * p if p.ndim > 2 else p, params)
  found = helped((arch, params), params, tree=SHAPES["tree"])
  assert_same(found.texts, alone((arch, params)))


def test_hidden_states_are_handed_to_the_draft(lm):
  """A draft that says what the target's own states at the token before say."""
  arch, params = lm

  @dataclasses.dataclass(frozen=True)
  class Echo(speculative.ModelDraft):
    """Guesses again what the target thought before the newest token."""

    def settle(self, params, kept, news, path):
      kept, _ = super().settle(params, kept, news, path)
      head = arch.bind(params)(news.view).head
      at = news.last[:, None, None]
      hidden = jnp.take_along_axis(news.hidden, at, 1)
      return kept, head(hidden)[:, 0]

  found = helped(lm, params, draft=Echo(arch), draft_tokens=1)
  expected = alone(lm)
  assert_same(found.texts, expected)
  # It guesses each newest token once more, as the target drew it from there.
  accepted = 0
  for text in expected:
    newest = 0
    while newest < len(text) - 1:
      right = text[newest + 1] == text[newest]
      accepted += right
      newest += 1 + right
  assert found.counts.accepted == (accepted,)
  assert accepted > 0
