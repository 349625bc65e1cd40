# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdistill import tokenizers
from jdistill.types import UserError

CHAT = [
  {"role": "system", "content": "Be brief."},
  {"role": "user", "content": "What is 2+2?"},
  {"role": "assistant", "content": "Four."},
  {"role": "user", "content": "And 3+3?"},
  {"role": "assistant", "content": "Six,\nI think."},
]


def with_template(tokenizer, template):
  changed = copy.copy(tokenizer)
  changed.chat_template = template
  return changed


def learnt(tokenizer, ids, mask):
  """The stretches of text that the mask marks."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
  return [
    tokenizer.decode(ids[a:b])
    for a, b in zip(edges[::2], edges[1::2], strict=True)
  ]


def test_only_the_assistants_words_are_learnt(byte_level):
  ids, mask = tokenizers.render_chat(byte_level, CHAT)
  assert (ids.dtype, mask.dtype) == (np.int32, np.uint8)
  text = byte_level.apply_chat_template(CHAT, tokenize=False)
  assert ids.tolist() == byte_level.encode(text, add_special_tokens=False)
  assert learnt(byte_level, ids, mask) == [
    "Four.<|im_end|>",
    "Six,\nI think.<|im_end|>",
  ]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(), min_size=1, max_size=6))
def test_any_chat_keeps_its_text(byte_level, contents):
  roles = ["user", "assistant"]
  chat = [
    {"role": roles[i % 2], "content": content}
    for i, content in enumerate([*contents, "end"])
  ]
  answers = [m["content"] for m in chat if m["role"] == "assistant"]
  if not answers:
    chat.append({"role": "assistant", "content": "end"})
    answers = ["end"]
  ids, mask = tokenizers.render_chat(byte_level, chat)
  text = byte_level.apply_chat_template(chat, tokenize=False)
  assert byte_level.decode(ids) == text
  assert learnt(byte_level, ids, mask) == [f"{a}<|im_end|>" for a in answers]


def test_a_token_over_the_edge_is_cut(byte_level):
  tokenizer = with_template(
    byte_level,
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: th' }}"
    "{% endif %}",
  )
  chat = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "the rest"},
  ]
  prompt = tokenizer.apply_chat_template(
    chat[:1], tokenize=False, add_generation_prompt=True
  )
  ids, mask = tokenizers.render_chat(tokenizer, chat)
  assert ids[mask == 0].tolist() == tokenizer.encode(prompt)
  assert learnt(tokenizer, ids, mask) == ["e rest"]


THINKING = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
  "{% if loop.last and m['role'] == 'assistant' %}{{ '(thinks)' }}{% endif %}"
  "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_rewrites_earlier_turns_is_refused(byte_level):
  tokenizer = with_template(byte_level, THINKING)
  ids, mask = tokenizers.render_chat(tokenizer, CHAT[:3])
  assert learnt(tokenizer, ids, mask) == ["(thinks)Four.<|im_end|>"]
  with pytest.raises(UserError, match=r"message 2 otherwise.*\(thinks\)"):
    tokenizers.render_chat(tokenizer, CHAT)


def test_a_prompt_that_is_not_in_the_chat_is_refused(byte_level):
  tokenizer = with_template(
    byte_level, byte_level.chat_template.replace("assistant\n'", "model\n'")
  )
  with pytest.raises(UserError, match="the prompt for message 2 otherwise"):
    tokenizers.render_chat(tokenizer, CHAT)


def test_chats_that_teach_nothing(byte_level, sentencepiece):
  with pytest.raises(UserError, match=r"no assistant's turn.*system, user"):
    tokenizers.render_chat(byte_level, CHAT[:2])
  with pytest.raises(UserError, match="roles: none"):
    tokenizers.render_chat(byte_level, [])
  with pytest.raises(UserError, match="message 0 of a chat has no role"):
    tokenizers.render_chat(byte_level, [{"content": "x"}])
  with pytest.raises(UserError, match="no chat template"):
    tokenizers.render_chat(sentencepiece, CHAT)
  with pytest.raises(UserError, match="fails on the first 3 messages"):
    tokenizers.render_chat(byte_level, [*CHAT[:2], {"role": "assistant"}])


def test_a_template_cannot_reach_the_machine(byte_level):
  tokenizer = with_template(
    byte_level, "{{ messages.__class__.__mro__[1].__subclasses__() }}"
  )
  with pytest.raises(UserError, match="fails"):
    tokenizers.render_chat(tokenizer, CHAT)
