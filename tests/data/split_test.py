# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from jdistill import types
from jdistill.data import split


@pytest.mark.parametrize(
  ("text", "count", "name", "bounds"),
  [
    ("", 10, "", (0, 10)),
    ("train", 10, "train", (0, 10)),
    ("[:90%]", 10, "", (0, 9)),
    ("[90%:]", 10, "", (9, 10)),
    ("train[:50%]", 7, "train", (0, 4)),
    ("train[50%:]", 7, "train", (4, 7)),
    ("[100:200]", 1000, "", (100, 200)),
    ("[100:200]", 150, "", (100, 150)),
    ("[-2:]", 10, "", (8, 10)),
    ("[:-10%]", 10, "", (0, 9)),
    ("[8:2]", 10, "", (8, 8)),
    ("a_b-1.2[:]", 4, "a_b-1.2", (0, 4)),
  ],
)
def test_splits(text, count, name, bounds):
  parsed = split.parse(text)
  assert parsed.name == name
  assert parsed.bounds(count) == bounds


@pytest.mark.parametrize("count", range(60))
def test_neighbouring_percents_share_their_edge(count):
  low = split.parse("[:37%]").bounds(count)
  high = split.parse("[37%:]").bounds(count)
  assert low[1] == high[0]
  assert (low[0], high[1]) == (0, count)


@pytest.mark.parametrize("text", ["[5]", "train[:x]", "[:1.5%]", "a b", "[1:2"])
def test_other_forms_are_refused_with_an_example(text):
  with pytest.raises(types.UserError, match=r"expected NAME.*\[:90%\]"):
    split.parse(text)


@pytest.mark.parametrize(
  ("patterns", "chosen"),
  [
    (("a*",), [0, 1]),
    (("!a*",), [2, 3]),
    (("*", "!*/x"), [0, 2]),
    (("a", "b"), [0, 2]),
    (("z",), []),
  ],
)
def test_globs(patterns, chosen):
  assert split.select(["a", "a/x", "b", "b/x"], patterns) == chosen
