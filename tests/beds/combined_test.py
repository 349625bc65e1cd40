# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jdistill import beds, data, types
from jdistill.beds import arithmetic

SUMS = beds.Arithmetic()
SHOWN = beds.Demonstrated(beds.Arithmetic(operations="-"))


def test_a_demonstration_is_the_document_itself():
  plain = SHOWN.of.documents(0, 20, "heldout", length=12)
  for bare, document in zip(
    plain, SHOWN.documents(0, 20, "heldout", length=24), strict=True
  ):
    answer, prompt = bare.answer, bare.prompt
    np.testing.assert_array_equal(document.answer, answer)
    np.testing.assert_array_equal(document.prompt, [*prompt, *answer, *prompt])
  with pytest.raises(types.UserError, match="raise seq_len"):
    SHOWN.documents(0, 20, length=12)


def test_demonstrations_are_what_privileged_prompts_say():
  """What a base learns to read is what self-distillation shows it."""
  of = beds.BedData(SHOWN.of, num_documents=8, seq_len=12)
  told = data.Prompts(
    of, prompt_tokens=6, batch_size=8, shuffle=False,
    privileged="{prompt}{answer}{prompt}", privileged_tokens=16,
  )  # fmt: skip
  rows = next(data.load(told, seed=0))
  for document, prompt, length in zip(
    SHOWN.documents(0, 8, length=24),
    rows["privileged"],
    rows["privileged_length"],
    strict=True,
  ):
    np.testing.assert_array_equal(prompt[:length], document.prompt)


def test_worlds_take_turns():
  mixed = beds.Mixed({"plain": SUMS, "shown": SHOWN})
  found = mixed.documents(3, 5, length=24)
  plain = SUMS.documents(3, 3)
  shown = SHOWN.documents(3, 2, length=24)
  for document, other in zip(
    found, [plain[0], shown[0], plain[1], shown[1], plain[2]], strict=True
  ):
    np.testing.assert_array_equal(document.tokens, other.tokens)
    assert document.prompt_length == other.prompt_length
  assert (mixed.vocab_size, mixed.end_ids) == (SUMS.vocab_size, SUMS.end_ids)
  assert mixed.pieces(np.array([arithmetic.EOS])) == ["⏎"]
  with pytest.raises(types.UserError, match="vocabularies of"):
    beds.Mixed({"plain": SUMS, "chain": beds.MarkovChain()})


def test_a_lesson_holds_the_longest_answers():
  lesson = beds.Lesson(SUMS, prompt_tokens=6, max_new_tokens=4)
  assert lesson.seq_len == SUMS.max_length - 1
  assert lesson.greedy.temperature == 0 < lesson.sampling.temperature
  rows = next(data.load(lesson.heldout(batch_size=8), seed=0))
  assert rows["prompt"].shape == (8, 6)
  assert rows["tokens"].shape == (8, lesson.seq_len)
