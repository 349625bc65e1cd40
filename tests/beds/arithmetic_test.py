# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jdistill import types
from jdistill.beds import arithmetic
from jdistill.beds.arithmetic import Arithmetic, decode, encode, verify


@pytest.mark.parametrize(
  ("prompt", "completion", "reward"),
  [
    ("12+7=", "19", 1.0),
    ("12+7=", "20", 0.0),
    ("12+7=", "019", 0.0),
    ("12+7=", "19 ", 0.0),
    ("12+7=", "+19", 0.0),
    ("12+7=", "191", 0.0),
    ("12+7=", "", 0.0),
    ("3-12+1=", "-8", 1.0),
    ("3-3=", "0", 1.0),
    ("3-3=", "-0", 0.0),
  ],
)
def test_verifier(prompt, completion, reward):
  assert verify(prompt, completion) == reward


@pytest.mark.parametrize("prompt", ["", "12+7", "12+=", "a+1=", "1*2=", "1=1="])
def test_verifier_refuses_what_is_no_sum(prompt):
  with pytest.raises(types.UserError, match="expected numbers joined"):
    verify(prompt, "1")


def test_characters_round_trip():
  ids = encode(arithmetic.ALPHABET)
  assert len(set(ids.tolist())) == len(arithmetic.ALPHABET)
  assert ids.min() > max(arithmetic.PAD, arithmetic.EOS)
  assert ids.max() == arithmetic.VOCAB_SIZE - 1
  assert decode(np.append(ids, [arithmetic.EOS, 5])) == arithmetic.ALPHABET
  assert decode([4, 0, 99]) == "2??"
  with pytest.raises(types.UserError, match="found 'x'"):
    encode("1x")


BED = Arithmetic(terms=(2, 4), digits=(1, 3), operations="+-")


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_documents_are_right_and_say_what_is_learnt(part):
  docs = BED.documents(0, 200, part)
  prompts = BED.prompts(0, 200, part)
  lengths = set()
  for prompt, doc in zip(prompts, docs, strict=True):
    assert decode(doc.prompt) == prompt
    assert doc.answer[-1] == arithmetic.EOS
    assert str(eval(prompt[:-1])) == decode(doc.answer)
    assert verify(prompt, decode(doc.answer)) == 1.0
    assert len(doc.tokens) <= BED.max_length
    np.testing.assert_array_equal(
      doc.learn, [0] * len(prompt) + [1] * len(doc.answer)
    )
    lengths.add(len(prompt.replace("-", "+").split("+")))
  assert lengths == {2, 3, 4}
  assert BED.accuracy(prompts, [doc.answer for doc in docs]) == 1.0


@pytest.mark.parametrize("operations", ["+", "-", "+-"])
def test_longest_document_is_reached(operations):
  bed = Arithmetic(digits=(1, 1), heldout=0.0, operations=operations)
  longest = max(len(doc.tokens) for doc in bed.documents(0, 300))
  assert longest == bed.max_length == 7  # 9+9=18 or 0-9=-9, and the end


def test_label_noise_has_its_share_and_leaves_prompts_alone():
  noisy = Arithmetic(label_noise=0.3, operations="+-")
  clean = Arithmetic(operations="+-")
  prompts = clean.prompts(5, 2000)
  assert noisy.prompts(5, 2000) == prompts
  answers = [decode(doc.answer) for doc in noisy.documents(5, 2000)]
  right = [
    verify(prompt, answer)
    for prompt, answer in zip(prompts, answers, strict=True)
  ]
  assert 1 - np.mean(right) == pytest.approx(0.3, abs=0.04)
  assert all(str(int(answer)) == answer for answer in answers)
  always = Arithmetic(label_noise=1.0, digits=(1, 1), operations="+-")
  docs = always.documents(0, 300)
  assert (
    always.accuracy(always.prompts(0, 300), [doc.answer for doc in docs]) == 0.0
  )


def test_parts_share_no_prompt_whatever_the_seed():
  bed = Arithmetic(digits=(1, 1))
  train = {p for seed in range(3) for p in bed.prompts(seed, 300)}
  heldout = {p for seed in range(3) for p in bed.prompts(seed, 300, "heldout")}
  assert len(train) + len(heldout) <= 100
  assert not train & heldout
  assert len(heldout) > 2


def test_documents_depend_on_seed_and_index_only():
  assert BED.prompts(1, 3) == BED.prompts(1, 50)[:3]
  assert BED.prompts(1, 3) != BED.prompts(2, 3)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"terms": (1, 2)}, "terms"),
    ({"digits": (3, 2)}, "digits"),
    ({"label_noise": 1.5}, "label_noise"),
  ],
)
def test_impossible_sums_are_refused(fields, message):
  with pytest.raises(types.UserError, match=message):
    Arithmetic(**fields)


def test_a_part_without_prompts_is_refused():
  with pytest.raises(types.UserError, match="no prompt of the heldout part"):
    Arithmetic(heldout=0.0).prompts(0, 1, "heldout")


def test_pieces_are_characters():
  ids = np.append(encode("1+2=3"), [arithmetic.EOS, arithmetic.PAD])
  assert BED.pieces(ids) == ["1", "+", "2", "=", "3", "\u23ce", ""]
