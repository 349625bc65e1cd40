# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import json

import numpy as np
import pytest

from jdistill import beds, data, types


def bed(seed: int, num: int = 6, **changes) -> beds.BedData:
  chain = beds.MarkovChain(vocab_size=5, seed=seed)
  return beds.BedData(chain, num_documents=num, seq_len=8, **changes)


def both(**changes) -> data.Domains:
  parts = {"a": bed(0), "b": bed(1, num=10)}
  return data.Domains(**{"parts": parts, "batch_size": 4, **changes})


def batches(spec, num, **how):
  loader = data.load(spec, None, seed=3, num_threads=0, **how)
  found = list(itertools.islice(loader, num))
  loader.close()
  return found


def test_rows_say_their_domain_and_are_those_of_their_part():
  spec = both(shuffle=False, epochs=1)
  rows = [
    {k: v[i] for k, v in batch.items()}
    for batch in batches(spec, 4)
    for i in range(4)
  ]
  assert [row["domain"] for row in rows] == [0] * 6 + [1] * 10
  assert [row["example_id"] for row in rows] == list(range(16))
  for (name, part), first in zip(spec.parts.items(), (0, 6), strict=True):
    [own] = part.open().sources
    for i in range(len(own)):
      for key in ("tokens", "targets", "mask"):
        np.testing.assert_array_equal(
          rows[first + i][key], own[i][key], err_msg=f"{name}/{key}"
        )


def test_shares_of_the_rows():
  mixed = both(weights={"a": 3.0}, batch_size=16)
  found = np.stack([batch["domain"] for batch in batches(mixed, 8)])
  assert (found == 0).mean() == 0.75
  assert ((found == 0).sum(1) == 12).all()  # and of each batch


def test_pure_batches_are_of_one_domain():
  pure = both(weights={"a": 3.0}, batches="pure")
  found = np.stack([batch["domain"] for batch in batches(pure, 16)])
  assert (found == found[:, :1]).all()
  assert (found[:, 0] == 0).sum() == 12
  ids = np.concatenate([batch["example_id"] for batch in batches(pure, 16)])
  counts = np.bincount(ids, minlength=16)
  assert set(counts[:6]) == {8}  # 48 rows of 6
  assert set(counts[6:]) <= {1, 2}  # 16 of 10


def test_pure_batches_of_several_processes():
  pure = both(batches="pure")
  whole = batches(pure, 6)
  parts = [batches(pure, 6, process_index=i, process_count=2) for i in (0, 1)]
  for at, batch in enumerate(whole):
    for process, own in enumerate(parts):
      np.testing.assert_array_equal(
        own[at]["example_id"], batch["example_id"][process::2]
      )


def test_a_saved_place_knows_how_rows_were_drawn():
  loader = data.load(both(batches="pure"), None, seed=3, num_threads=0)
  state = loader.state()
  loader.close()
  again = data.load(both(), None, seed=3, num_threads=0)
  with pytest.raises(types.UserError, match="saved with other rows"):
    again.restore(state)
  again.close()


def test_prompts_of_several_domains(tmp_path):
  """Whose rows know where their answers are, or do not."""
  path = tmp_path / "t.jsonl"
  path.write_text(json.dumps({"tokens": [1, 2, 3, 4]}) + "\n")
  texts = data.TextData(
    (data.Source(f"jsonl:{path}", format="tokens"),), seq_len=8, packing="pad"
  )
  of = data.Domains({"text": texts, "bed": bed(0)})
  spec = data.Prompts(
    of, prompt_tokens=2, batch_size=7, epochs=1, shuffle=False
  )
  [batch] = batches(spec, 1)
  assert batch["domain"].tolist() == [0] + [1] * 6
  assert batch["prompt"].shape == (7, 2)
  assert spec.further() == {"domain": (), "prompt": (2,), "prompt_length": ()}
  assert spec.num_domains == 2


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"parts": {}}, "parts is empty"),
    ({"weights": {"c": 1.0}}, r"weights\.c: there is no such domain.*a, b"),
    ({"weights": {"a": 0.0}}, r"weights\.a is 0"),
    ({"batches": "pure", "epochs": 1}, "'pure', and with data.epochs"),
    (
      {
        "parts": {
          "a": bed(0),
          "b": beds.BedData(beds.MarkovChain(vocab_size=5), seq_len=9),
        }
      },
      r"parts\.b: its rows have tokens of shape \(9,\), and those of a \(8,\)",
    ),
  ],
)
def test_what_cannot_be(changes, said):
  with pytest.raises(types.UserError, match=said):
    both(**changes).open()
