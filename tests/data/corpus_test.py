# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import bz2
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jdistill import types
from jdistill.data import corpus


def read(ref, **fields):
  opened = corpus.open_corpus(corpus.Source(ref, **fields))
  return [opened[i] for i in range(len(opened))]


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "b").mkdir()
  (tmp_path / "b" / "two.txt").write_text("second")
  (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\r\n\r\nmore\r\n")
  (tmp_path / "c.txt.gz").write_bytes(gzip.compress("drittes \u00e4".encode()))
  (tmp_path / ".hidden").write_text("not this one")
  return tmp_path


def test_files_of_a_directory_come_by_name(folder):
  assert read(f"text:{folder}") == [
    "first\n\nmore\n",
    "second",
    "drittes \u00e4",
  ]


def test_text_is_cut_into_paragraphs_or_lines(folder):
  path = folder / "p.txt"
  path.write_text("one\nline\n \n\n two\nlines\n\n")
  assert read(f"text:{path}", cut="paragraph") == ["one\nline", "two\nlines"]
  assert read(f"text:{path}", cut="line") == ["one", "line", " two", "lines"]


def test_documents_are_chosen_by_name_and_then_by_split(folder):
  ref = f"text:{folder}"
  assert read(ref, select=("*.txt",)) == ["first\n\nmore\n", "second"]
  assert read(ref, select=("!a*",)) == ["second", "drittes \u00e4"]
  assert read(ref, select=("!a*",), split="[1:]") == ["drittes \u00e4"]


def test_json_lines(tmp_path):
  path = tmp_path / "d.jsonl"
  path.write_text('{"text": "one"}\n\n{"text": "two \u00e9"}')
  packed = tmp_path / "e.jsonl.gz"
  packed.write_bytes(gzip.compress(path.read_bytes()))
  assert read(f"jsonl:{path}") == ["one", "two \u00e9"]
  assert read(f"jsonl:{packed}", split="[50%:]") == ["two \u00e9"]


def test_parquet_reads_only_what_is_asked_for(tmp_path):
  table = pa.table({"n": range(5), "body": [f"t{i}" for i in range(5)]})
  pq.write_table(table, tmp_path / "d.parquet", row_group_size=2)
  ref = f"parquet:{tmp_path / 'd.parquet'}"
  assert read(ref, field="body") == ["t0", "t1", "t2", "t3", "t4"]
  opened = corpus.open_corpus(corpus.Source(ref, field="body"))
  assert set(opened.records[3]) == {"body"}
  assert opened.where(3).endswith("d.parquet, row 3")


def test_delimited_text_and_its_orange_variant(tmp_path):
  from jdistill.data import tables

  (tmp_path / "d.csv").write_text('id,text\n1,"a, b"\n007,"two\nlines"\n')
  held = tables.Delimited([tmp_path / "d.csv"])
  assert [held[i] for i in range(len(held))] == [
    {"id": "1", "text": "a, b"},
    {"id": "007", "text": "two\nlines"},
  ]
  (tmp_path / "d.tab").write_text(
    "Class\tText\nd\tstring\nclass\tinclude=True\nx\thello\ny\tworld\n"
  )
  held = tables.Delimited([tmp_path / "d.tab"])
  assert [held[i]["Text"] for i in range(len(held))] == ["hello", "world"]


def test_the_language_reference_comes_by_topic():
  texts = read("stdlib:pydoc", select=("assert", "del"))
  assert len(texts) == 2
  assert "assert" in texts[0].lower()


def test_a_wiki_dump_gives_its_articles_as_prose(tmp_path):
  article = (
    "{{Infobox|a={{b}}}}'''Tea''' is a [[drink|hot drink]]"
    "&lt;ref&gt;{{cite|x}}&lt;/ref&gt; made by [[China]] ({{IPA}}).\n"
    "[[File:cup.jpg|thumb|A [[cup]] [sic] of tea]]\n"
    "{| class=x\n| cell\n|}\n== Uses ==\nIt's [http://x.y drunk].\n"
    "== See also ==\n* [[Coffee]]\n=== More ===\n* [[Mate]]\n== End ==\nLast."
  )
  pages = [
    ("Old", "0", "<redirect title='Tea'/>", "#REDIRECT [[Tea]]"),
    ("Tea", "0", "", article),
    ("Talk:Tea", "1", "", "Chatter."),
  ]
  dump = "".join(
    f"<page><title>{t}</title><ns>{n}</ns>{r}<revision><text>{x}</text>"
    "</revision></page>"
    for t, n, r, x in pages
  )
  path = tmp_path / "pages-articles1.xml-p1p2.bz2"
  path.write_bytes(
    bz2.compress(f'<mediawiki xmlns="http://m/">{dump}</mediawiki>'.encode())
  )
  assert read(f"text:{path}", select=("Tea",)) == [
    "Tea is a hot drink made by China.\n\nUses\n\nIt's drunk.\n\nEnd\n\nLast."
  ]


def test_chats_and_token_ids(tmp_path):
  messages = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
  ]
  path = tmp_path / "d.jsonl"
  path.write_text(json.dumps({"messages": messages, "tokens": [3, 1, 2]}))
  assert read(f"jsonl:{path}", format="chat") == [messages]
  (ids,) = read(f"jsonl:{path}", format="tokens")
  np.testing.assert_array_equal(ids, [3, 1, 2])


def test_identity_follows_content_and_choice(tmp_path):
  path = tmp_path / "a.txt"

  def identity(text, **fields):
    path.write_text(text)
    source = corpus.Source(f"text:{path}", cut="line", **fields)
    return corpus.open_corpus(source).identity

  first = identity("a\nb\n")
  assert identity("a\nb\n") == first
  assert identity("a\nc\n") != first
  assert identity("a\nb\n", split="[:1]") != first


def faults(tmp_path):
  path = tmp_path / "d.jsonl"
  text = tmp_path / "d.txt"
  parquet = tmp_path / "d.parquet"
  gz = tmp_path / "d.txt.gz"
  return {
    "invalid JSON": (
      path,
      b'{"text": "a"}\n\n{"text": \n',
      {},
      r"line 3: not J",
    ),
    "no object": (path, b"[1]\n", {}, r"line 1: expected a JSON object"),
    "no such field": (
      path,
      b'{"text": "a"}\n{"texts": "b", "id": 1}\n',
      {},
      r"d\.jsonl, line 2: no field 'text'; found texts, id; did you mean 'te",
    ),
    "not text": (path, b'{"text": 5}\n', {}, r"line 1: field 'text': exp.*int"),
    "no chat": (
      path,
      b'{"messages": [{"role": "user"}]}\n',
      {"format": "chat"},
      r"expected a list of messages",
    ),
    "no ids": (
      path,
      b'{"tokens": ["a"]}\n',
      {"format": "tokens"},
      r"expected a list of token ids",
    ),
    "empty": (path, b"", {}, r"split '' is empty: there are 0 documents"),
    "empty split": (
      path,
      b'{"text": "a"}\n',
      {"split": "[5:]"},
      r"split '\[5:\]' is empty: there are 1 doc",
    ),
    "named split": (
      path,
      b'{"text": "a"}\n',
      {"split": "train[:1]"},
      r"only tfds: has named splits; write '\[:1\]'",
    ),
    "nameless": (
      path,
      b'{"text": "a"}\n',
      {"select": ("a",)},
      r"these have none; use split",
    ),
    "bad bytes": (
      text,
      b"caf\xe9 au lait",
      {},
      r"d\.txt: not UTF-8 at byte 3 \(found e9 20",
    ),
    "no match": (
      text,
      b"abc",
      {"select": ("x*",)},
      r"matches none of 1 documents, such as 'd\.txt'",
    ),
    "no Parquet": (parquet, b"PAR1", {}, r"d\.parquet: not a Parquet file"),
    "cut short": (
      gz,
      gzip.compress(b"abc" * 100)[:-9],
      {},
      r"d\.txt\.gz: cannot be unpacked",
    ),
  }


@pytest.mark.parametrize("name", faults(__import__("pathlib").Path()))
def test_faults_name_the_place_and_what_was_found(name, tmp_path):
  path, content, fields, message = faults(tmp_path)[name]
  path.write_bytes(content)
  kind = {".jsonl": "jsonl", ".parquet": "parquet"}.get(path.suffix, "text")
  with pytest.raises(types.UserError, match=message):
    read(f"{kind}:{path}", **fields)
