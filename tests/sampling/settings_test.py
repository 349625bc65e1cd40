# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from jdistill import config_json, types
from jdistill.sampling import Sampling


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"max_new_tokens": 0}, "max_new_tokens=0, expected at least 1"),
    ({"temperature": -1.0}, "temperature=-1"),
    ({"temperature": float("nan")}, "temperature=nan"),
    ({"top_k": 0}, "top_k=0, expected at least 1"),
    ({"top_p": 0.0}, "top_p=0.0, expected more than 0"),
    ({"top_p": 1.5}, "top_p=1.5"),
    ({"min_p": -0.1}, "min_p=-0.1, expected 0 to 1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty=0.0, expected more"),
  ],
)
def test_faults_are_named(change, message):
  with pytest.raises(types.UserError, match=message):
    Sampling(**change)


def test_settings_survive_json():
  sampling = Sampling(64, temperature=0.7, top_k=50, top_p=0.9, min_p=0.1)
  tree = config_json.encode(sampling)
  assert config_json.decode(tree, where="test") == sampling


def test_what_changes_nothing_is_no_step():
  idle = Sampling(top_p=1.0, min_p=0.0, repetition_penalty=1.0)
  assert idle.numbers() == {"temperature": 1.0}
  greedy = Sampling(temperature=0.0, top_p=0.5, min_p=0.5, top_k=3)
  assert greedy.numbers() == {}
