# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One text in the tokens of two tokenizers."""

import dataclasses
import itertools
import json
import pydoc_data.topics

import hypothesis
import numpy as np
import pytest
import tokenizers as library
import transformers
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jdistill import data, run, tokenizers, types
from jdistill.data import aligned, alignment

TEXTS = [pydoc_data.topics.topics[name] for name in ("yield", "while", "with")]


def byte_level(size: int, normalizer=None):
  """A byte-level BPE without BOS."""
  backend = library.Tokenizer(models.BPE())
  if normalizer is not None:
    backend.normalizer = normalizer
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    show_progress=False,
    special_tokens=["<end>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  backend.train_from_iterator(TEXTS, trainer)
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="<end>"
  )


def sentencepiece(prefix: bool = False):
  """SentencePiece's kind, with BOS and bytes for what it has no token for."""
  words = ["\u2581t", "\u2581th", "\u2581the", "in", "is", "\u2581\u2581"]
  letters = ["\u2581", *"abcdefghilmnorstu\n"]
  tokens = ["<bos>", "<eos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
  tokens += letters + words
  merges = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e"), ("i", "n")]
  merges += [("i", "s"), ("\u2581", "\u2581")]
  backend = library.Tokenizer(
    models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=merges,
      unk_token="<unk>",
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  written = [normalizers.Replace(" ", "\u2581")]
  if prefix:
    written.insert(0, normalizers.Prepend("\u2581"))
  backend.normalizer = normalizers.Sequence(written)
  backend.decoder = decoders.Sequence(
    [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  backend.add_special_tokens(["<bos>", "<eos>", "<unk>"])
  backend.post_processor = library.processors.TemplateProcessing(
    single="<bos> $A", special_tokens=[("<bos>", 0)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token="<bos>",
    eos_token="<eos>",
    unk_token="<unk>",
  )


SMALL, LARGE = byte_level(280), byte_level(500)
COMPOSING = byte_level(400, normalizers.NFC())
PIECES, PREFIXED = sentencepiece(), sentencepiece(prefix=True)
TABLES = {
  id(t): tokenizers.token_pieces(t)
  for t in (SMALL, LARGE, COMPOSING, PIECES, PREFIXED)
}
HOSTILE = st.lists(
  st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.sampled_from("\u2581\u0301\u200d\u00a0\ufeff\x00\r\n\t \u1e9e\u0130"),
    st.sampled_from(["\U0001f468\u200d\U0001f469", "e\u0301", "the ", "  "]),
  ),
  max_size=20,
).map("".join)


def pieces(tokenizer, text: str) -> list[bytes]:
  table = TABLES[id(tokenizer)]
  ids = tokenizer.encode(text, add_special_tokens=False)
  found = [table[i] for i in ids]
  if tokenizers.prepends_space(tokenizer) and found:
    found[0] = found[0].removeprefix(b" ")
  return found


def chunk_texts(side: list[bytes], numbers: np.ndarray) -> list[bytes]:
  last = int(numbers.max(initial=0))
  return [
    b"".join(p for p, n in zip(side, numbers, strict=True) if n == k)
    for k in range(1, last + 1)
  ]


@pytest.mark.parametrize(
  ("student", "teacher", "lossless"),
  [
    (SMALL, LARGE, True),
    (LARGE, PIECES, False),  # which takes U+2581 for a space
    (SMALL, PREFIXED, False),
    (COMPOSING, PIECES, False),
    (LARGE, LARGE, True),
  ],
  ids=["bytes", "pieces", "prefix", "composing", "same"],
)
@hypothesis.given(text=HOSTILE)
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_chunks_are_the_same_text_on_both_sides(
  student, teacher, lossless, text
):
  sides = pieces(student, text), pieces(teacher, text)
  found = alignment.align(*sides)
  for side, numbers in zip(sides, found, strict=True):
    assert len(side) == len(numbers)
    counted = numbers[numbers > 0]
    assert (np.diff(counted) >= 0).all()
  texts = [chunk_texts(*each) for each in zip(sides, found, strict=True)]
  assert texts[0] == texts[1]
  assert all(texts[0])
  if lossless:
    assert b"".join(texts[0]) == text.encode()
  if student is teacher:
    assert len(texts[0]) == len(sides[0])


@hypothesis.given(
  cuts=st.tuples(*[st.sets(st.integers(1, 59), max_size=20)] * 2)
)
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_a_chunk_ends_wherever_both_sides_have_an_end(cuts):
  text = bytes(range(60))
  bounds = [sorted({0, 60, *cut}) for cut in cuts]
  sides = [
    [text[a:b] for a, b in itertools.pairwise(bound)] for bound in bounds
  ]
  found = alignment.align(*sides)
  common = sorted(set(bounds[0]) & set(bounds[1]))
  expected = [text[a:b] for a, b in itertools.pairwise(common)]
  for side, numbers in zip(sides, found, strict=True):
    assert chunk_texts(side, numbers) == expected


def test_what_a_normaliser_changes_is_in_no_chunk():
  text = "this is e\u0301 and the rest is the same"
  sides = pieces(SMALL, text), pieces(COMPOSING, text)
  found = alignment.align(*sides)
  texts = [chunk_texts(*each) for each in zip(sides, found, strict=True)]
  assert texts[0] == texts[1]
  joined = b"".join(texts[0])
  assert joined == text.replace("e\u0301", "").encode()


def test_a_special_token_is_in_no_chunk_but_the_last():
  sides = [b"", b"ab", b"c", b""], [b"a", b"bc", b""]
  found = alignment.align(*sides, ended=True)
  assert [n.tolist() for n in found] == [[0, 1, 1, 2], [1, 1, 2]]
  # One in the middle of a chunk breaks it.
  found = alignment.align([b"ab", b"c"], [b"a", b"", b"b", b"c"])
  assert [n.tolist() for n in found] == [[0, 1], [0, 0, 0, 1]]


def test_texts_that_are_not_the_same_have_no_chunk():
  found = alignment.align([b"one"], [b"quite another"])
  assert not found.student.any()
  assert not found.teacher.any()
  assert [len(n) for n in alignment.align([], [b"a"])] == [0, 1]


@hypothesis.given(
  lengths=st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=40
  ),
  sizes=st.tuples(st.integers(5, 12), st.integers(5, 12)),
  prefixed=st.tuples(st.booleans(), st.booleans()),
)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_pieces_fit_and_have_each_chunk_once(lengths, sizes, prefixed):
  counts = np.array(lengths)
  sides = [np.repeat(np.arange(1, len(counts) + 1), c) for c in counts.T]
  chunks = alignment.Chunks(*sides)
  learnt = []
  for piece in alignment.cut(chunks, sizes, prefixed):
    learnt += range(piece.chunks[0], piece.chunks[1] + 1)
    for i, side in enumerate(sides):
      more = piece.continued and prefixed[i]
      assert piece.stop[i] - piece.start[i] - 1 + more <= sizes[i]
      low, high = piece.learnt[i]
      assert piece.start[i] <= low <= high <= piece.stop[i]
      # Before what counts there is whole text, and behind it more.
      assert side[piece.start[i]] == 1 or side[piece.start[i] - 1] < side[
        piece.start[i]
      ]  # fmt: skip
      last = piece.stop[i] == len(side)
      assert last or side[piece.stop[i] - 1] > piece.chunks[1]
  assert len(set(learnt)) == len(learnt)
  if counts.max() * 3 <= min(sizes):  # three chunks always fit
    assert learnt == list(range(1, len(counts) + 1))


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Texts as JSON lines, and the teacher's tokenizer in a directory."""
  path = tmp_path / "texts.jsonl"
  texts = [*TEXTS, "the thin one", "\u00e9\u4e16 in \U0001f600 the end"]
  path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
  PIECES.save_pretrained(str(tmp_path / "teacher"))
  return f"jsonl:{path}", str(tmp_path / "teacher"), texts


def spec(files, **fields):
  ref, teacher, _ = files
  fields = {"packing": "pack", "teacher_len": 90, "seq_len": 40} | fields
  text = data.TextData(
    (data.Source(ref),), seq_len=fields["seq_len"], packing=fields["packing"]
  )
  return data.Aligned(
    text,
    tokenizer=teacher,
    teacher_len=fields["teacher_len"],
    batch_size=2,
    shuffle=False,
    epochs=1,
  )


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_rows_hold_every_text_in_both_tokens(files, packing):
  loader = data.load(spec(files, packing=packing), LARGE, seed=0, num_threads=0)
  tables = {"student": TABLES[id(LARGE)], "teacher": TABLES[id(PIECES)]}
  learnt, total = {"student": b"", "teacher": b""}, 0
  for arrays in loader:
    batch = run.to_batch(arrays)
    for row in range(2):
      texts = []
      for side, table in tables.items():
        view, numbers = batch[side], batch.data[f"{side}_chunks"][row]
        targets, mask = view.targets[row], view.mask[row]
        assert (mask[numbers > 0] > 0).all()
        texts.append(chunk_texts([table[i] for i in targets], numbers))
        learnt[side] += b"".join(table[i] for i in targets[mask > 0])
      assert texts[0] == texts[1]
      total += len(texts[0])
      # Both views have the same documents under the same numbers.
      student, teacher = (batch[k].segment_ids[row].max() for k in tables)
      assert student == teacher
  # The student, without BOS, never predicts the first token of a document.
  first = [LARGE.encode(text)[0] for text in files[2]]
  missing = sum(len(tables["student"][i]) for i in first)
  size = sum(len(text.encode()) for text in files[2])
  assert len(learnt["student"]) == size - missing
  assert len(learnt["teacher"]) == size
  assert total > 500


def test_processes_and_the_cache_give_the_same_rows(files, tmp_path):
  config = dataclasses.replace(spec(files), shuffle=True, epochs=None)
  cache = tmp_path / "cache"
  whole = next(data.load(config, LARGE, seed=3, cache_dir=cache))
  assert len(list(cache.iterdir())) == 3  # two tokenizations and the chunks
  for index in range(2):
    part = next(
      data.load(
        config,
        LARGE,
        seed=3,
        cache_dir=cache,
        process_index=index,
        process_count=2,
      )
    )
    for name, values in whole.items():
      np.testing.assert_array_equal(part[name], values[index::2])


def test_shapes_are_known_without_the_text(files):
  config = spec(files)
  arrays = next(data.load(config, LARGE, seed=0))
  for name, shape in config.further().items():
    assert arrays[name].shape == (2, *shape)
    assert arrays[name].dtype == np.int32
  for view, size in config.views().items():
    assert arrays[f"{view}/tokens"].shape == (2, size)
  example = config.open(LARGE).facts.example
  assert {k: v.shape for k, v in example.items()} == {
    k: v.shape[1:] for k, v in arrays.items() if k != "example_id"
  }


def test_pairs_that_cannot_be_aligned_are_refused(files, tmp_path):
  backend = library.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
  backend.decoder = decoders.WordPiece()
  words = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, unk_token="[UNK]", eos_token="[UNK]"
  )
  words.save_pretrained(str(tmp_path / "words"))
  config = dataclasses.replace(spec(files), tokenizer=str(tmp_path / "words"))
  with pytest.raises(types.UserError, match="does not keep all bytes"):
    config.open(LARGE)
  chats = dataclasses.replace(
    config.of, sources=(data.Source(files[0], format="chat"),)
  )
  with pytest.raises(types.UserError, match=r"sources.0.format is 'chat'"):
    dataclasses.replace(config, of=chats).open(LARGE)
  with pytest.raises(types.UserError, match="teacher_len is 1"):
    spec(files, teacher_len=1).open(LARGE)
  assert aligned.VIEW in config.views()
