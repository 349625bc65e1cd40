# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import json

import jax
import pytest

from jdistill import types
from jdistill.sampling import speculative
from jdistill.sampling.speculative.tree import Tree

PROMPTS = [[1], [2, 0, 1], [3, 3]]


@pytest.fixture(scope="module")
def measured(bigram, tables, as_params):
  def measure(name, **settings):
    return speculative.measure(
      bigram,
      speculative.ModelDraft(bigram),
      as_params(tables["target"]),
      as_params(tables[name]),
      PROMPTS,
      **{"max_new_tokens": 30, "batch_size": 2} | settings,
    )

  return measure


@pytest.mark.slow
def test_a_perfect_draft_saves_all_it_can(measured):
  found = measured("same", draft_tokens=2, repeats=1)
  assert found.prompts == 3
  assert found.tokens == 90
  assert found.acceptance == (1.0, 1.0)
  assert found.rate == found.expected_rate == 1.0
  # 29 tokens after the prompt's own, 3 for each pass but the last.
  assert found.passes == 3 * 10
  assert found.tokens_per_pass == pytest.approx(87 / 30)
  assert found.different == 0
  timing = found.timing
  assert timing.speedup == pytest.approx(timing.plain / timing.speculative)
  costs = timing.costs
  assert min(costs.target_step, costs.target_block, costs.draft_block) > 0
  assert costs.draft_calls == 2
  assert found.predicted == costs.speedup(found.tokens_per_pass)
  assert json.loads(json.dumps(found.to_json()))["timing"]["costs"]
  assert any("times as fast" in line for line in speculative.lines(found))


@pytest.mark.slow
def test_acceptance_alone_needs_no_timing(measured):
  settings = {"temperature": 1.0, "key": jax.random.key(2), "repeats": 0}
  found = measured("bad", draft_tokens=2, **settings)
  assert found.timing is None
  assert found.different is None
  assert found.predicted is None
  assert found.exact
  assert found.rate < 1
  assert found.tokens_per_pass == pytest.approx(
    1 + found.accepted_per_pass, abs=3 / found.passes
  )
  lenient = measured("bad", draft_tokens=2, lenience=0.2, **settings)
  assert not lenient.exact
  assert any("NOT exact" in line for line in speculative.lines(lenient))
  assert lenient.rate > found.rate


@pytest.mark.slow
def test_more_guesses_in_a_place_are_accepted_more_often(measured):
  settings = {"temperature": 1.0, "key": jax.random.key(2), "repeats": 0}
  settings["max_new_tokens"] = 200
  one = measured("bad", tree=Tree.chain(1), **settings)
  three = measured("bad", tree=Tree.branching((3,)), **settings)
  assert three.rate > one.rate
  assert three.tokens_per_pass > one.tokens_per_pass


def test_without_prompts_there_is_nothing_to_measure(bigram, tables, as_params):
  params = as_params(tables["same"])
  with pytest.raises(types.UserError, match="found 0 prompts"):
    speculative.measure(
      bigram, speculative.ModelDraft(bigram), params, params, []
    )
