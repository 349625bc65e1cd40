# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jdistill.sampling.speculative.costs import Costs, tokens_per_pass


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_tokens_per_pass_are_those_of_independent_coins(
  acceptance, draft_tokens
):
  coins = np.random.default_rng(0).random((100_000, draft_tokens))
  accepted = np.cumprod(coins < acceptance, axis=1).sum(1)
  error = 5 * draft_tokens / np.sqrt(len(coins))
  found = tokens_per_pass(acceptance, draft_tokens)
  assert abs(found - (1 + accepted.mean())) <= error
  without = tokens_per_pass(acceptance, draft_tokens, bonus=False)
  assert without == pytest.approx(found - 1)


def test_without_the_bonus_it_is_the_other_convention():
  a, g = 0.7, 5
  assert tokens_per_pass(a, g, bonus=False) == pytest.approx(
    a * (1 - a**g) / (1 - a)
  )


def test_speedup_weighs_tokens_by_passes():
  costs = Costs(
    target_step=2.0, target_block=3.0, draft_block=1.6, draft_calls=4
  )
  assert costs.draft_ratio == pytest.approx(0.2)
  assert costs.block_ratio == pytest.approx(1.5)
  assert costs.speedup(3.0) == pytest.approx(3 / (0.8 + 1.5))
  assert costs.speedup(3.0, block=False) == pytest.approx(3 / 1.8)
