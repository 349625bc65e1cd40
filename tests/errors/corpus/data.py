# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Files of text and of arrays."""

import gzip
import io
import pathlib

import numpy as np
from corpus.case import case, change, cut, put, rows, text

BAD = "train bad.py"
LONG = '{"text": "' + "yes and no " * 40 + '"}'


def parquet(root: pathlib.Path) -> None:
  import pyarrow as pa
  import pyarrow.parquet as pq

  table = pa.table({"body": ["yes and no " * 20] * 9})
  pq.write_table(table, root / "x.parquet")


def npz(**arrays):
  def make(root: pathlib.Path) -> None:
    np.savez(root / "x.npz", **arrays)

  return make


def packed(content: bytes) -> bytes:
  out = io.BytesIO()
  with gzip.GzipFile(fileobj=out, mode="wb") as file:
    file.write(content)
  return out.getvalue()


LINES = (LONG + "\n").encode() * 20


def arrays(more: str = "") -> object:
  return change(
    f"data=data.ArrayData('npz:x.npz', batch_size=8{more}), evals={{}}, "
    "student=config.Fresh(models.MLPConfig(widths=(8,), shape=(4,))), "
    "teachers={}, "
    "method=methods.CrossEntropy()"
  )


TEXT = [
  case("no-such-file", BAD, "jsonl:texts.jsonl", "text.jsonl",
       text("jsonl:texts.jsonl")),
  case("no-such-directory", BAD, "jsonl:data/train", text("jsonl:data/train")),
  case("glob-of-nothing", BAD, "*.jsonl", text("jsonl:data/*.jsonl")),
  case("path-without-a-scheme", BAD, "text.jsonl", "jsonl:text.jsonl",
       text("text.jsonl")),
  case("scheme-nobody-knows", BAD, "'json'", "jsonl:", text("json:text.jsonl")),
  case("no-tfds", BAD, "tfds:nothing_of_this_name",
       text("tfds:nothing_of_this_name")),
  case("empty-file", BAD, "jsonl:x.jsonl", put("x.jsonl"),
       text("jsonl:x.jsonl")),
  case("blank-lines-alone", BAD, "jsonl:x.jsonl", put("x.jsonl", "\n \n\n"),
       text("jsonl:x.jsonl")),
  case("bad-json-line", BAD, "x.jsonl, line 2", "not JSON", "column",
       rows("x.jsonl", LONG, '{"text": "a', LONG), text("jsonl:x.jsonl")),
  case("json-array", BAD, "x.jsonl, line 1", "object",
       rows("x.jsonl", '["a", "b"]'), text("jsonl:x.jsonl")),
  case("whole-json-file", BAD, "x.jsonl, line 1", "not JSON",
       put("x.jsonl", '[\n  {"text": "a"}\n]\n'), text("jsonl:x.jsonl")),
  case("missing-column", BAD, "x.jsonl, line 1", "'text'", "content",
       rows("x.jsonl", '{"content": "yes"}'), text("jsonl:x.jsonl")),
  case("column-of-numbers", BAD, "x.jsonl, line 1", "'text'", "int",
       rows("x.jsonl", '{"text": 3}'), text("jsonl:x.jsonl")),
  case("column-of-null", BAD, "x.jsonl, line 1", "NoneType",
       rows("x.jsonl", '{"text": null}'), text("jsonl:x.jsonl")),
  case("latin1", BAD, "x.jsonl, line 2", "UTF-8", "iconv",
       put("x.jsonl", f'{LONG}\n{{"text": "\xe9"}}\n'.encode("latin1")),
       text("jsonl:x.jsonl")),
  case("utf16", BAD, "x.jsonl, line 1", "it is UTF-16",
       put("x.jsonl", f"{LONG}\n".encode("utf-16")), text("jsonl:x.jsonl")),
  case("nul-bytes", BAD, "x.jsonl, line 2", "not JSON",
       put("x.jsonl", f"{LONG}\n".encode() + b"\0" * 50),
       text("jsonl:x.jsonl")),
  case("text-file-in-latin1", BAD, "x.txt", "UTF-8",
       put("x.txt", "caf\xe9 ".encode("latin1") * 50), text("text:x.txt")),
  case("chat-of-texts", BAD, "x.jsonl, line 1", "messages", "role",
       rows("x.jsonl", '{"messages": ["hello"]}'),
       text("jsonl:x.jsonl", "format='chat'")),
  case("chat-without-a-template", BAD, "chat template",
       rows("x.jsonl", '{"messages": [{"role": "user", "content": "a"}, '
            '{"role": "assistant", "content": "b"}]}'),
       text("jsonl:x.jsonl", "format='chat'")),
  case("tokens-of-words", BAD, "x.jsonl, line 1", "token ids",
       rows("x.jsonl", '{"tokens": ["a", "b"]}'),
       text("jsonl:x.jsonl", "format='tokens'")),
  case("tokens-beyond-the-vocabulary", BAD, "x.jsonl", "99999",
       rows("x.jsonl", '{"tokens": [1, 2, 99999]}'),
       text("jsonl:x.jsonl", "format='tokens'")),
  case("negative-tokens", BAD, "x.jsonl", "-5",
       rows("x.jsonl", '{"tokens": [1, -5, 3]}'),
       text("jsonl:x.jsonl", "format='tokens'")),
  case("completion-without-a-prompt", BAD, "x.jsonl, line 1", "neither",
       rows("x.jsonl", LONG), text("jsonl:x.jsonl", "format='completion'")),
  case("format-nobody-knows", BAD, "format", "'chats'",
       text("jsonl:text.jsonl", "format='chats'")),
  case("split-of-nothing", BAD, "split '[:0%]'", "32",
       text("jsonl:text.jsonl", "split='[:0%]'")),
  case("split-of-no-form", BAD, "split '90%'",
       text("jsonl:text.jsonl", "split='90%'")),
  case("split-by-name", BAD, "'train[:90%]'", "[:90%]",
       text("jsonl:text.jsonl", "split='train[:90%]'")),
  case("select-without-names", BAD, "select", "text.jsonl",
       text("jsonl:text.jsonl", "select=('a*',)")),
  case("weight-zero", BAD, "data.sources.0.weight", "0",
       text("jsonl:text.jsonl", "weight=0.0")),
  case("truncated-gzip", BAD, "x.jsonl.gz", "cut short",
       put("x.jsonl.gz", packed(LINES)[:-40]), text("jsonl:x.jsonl.gz")),
  case("gzip-that-is-none", BAD, "x.jsonl.gz",
       put("x.jsonl.gz", LINES), text("jsonl:x.jsonl.gz")),
  case("gzip-without-its-suffix", BAD, "x.jsonl, line 1", "suffix .gz",
       put("x.jsonl", packed(LINES)), text("jsonl:x.jsonl")),
  case("truncated-parquet", BAD, "x.parquet", "Parquet", parquet,
       cut("x.parquet", -20), text("parquet:x.parquet")),
  case("parquet-of-another-column", BAD, "x.parquet, row 0", "'text'", "body",
       parquet, text("parquet:x.parquet")),
  case("csv-of-uneven-rows", BAD, "x.csv", "columns",
       put("x.csv", "text,more\na,b\nc\n"), text("csv:x.csv")),
  case("csv-of-another-column", BAD, "x.csv", "'text'", "body",
       put("x.csv", "body,more\na,b\n"), text("csv:x.csv")),
  case("prompts-longer-than-the-rows", BAD, "prompt_tokens is 64", "16",
       change("data=data.Prompts(of=dataclasses.replace(cfg.data, "
              "packing='pad'), prompt_tokens=64), evals={}")),
  case("prompts-of-packed-rows", BAD, "packing",
       change("data=data.Prompts(of=cfg.data, prompt_tokens=4), evals={}")),
  case("eval-file-that-is-not-there", BAD, "jsonl:held.jsonl",
       change("evals={'eval': dataclasses.replace(cfg.data, "
              "sources=(data.Source('jsonl:held.jsonl'),))}")),
]  # fmt: skip

TABLES = [
  case("truncated-npz", BAD, "x.npz",
       npz(image=np.zeros((9, 4)), label=np.zeros(9)),
       cut("x.npz", -30), arrays()),
  case("npz-that-is-none", BAD, "x.npz", "no zip archive",
       put("x.npz", "hello"), arrays()),
  case("npz-of-objects", BAD, "x.npz", "pickle",
       npz(image=np.array([{}, []], object), label=np.zeros(2)), arrays()),
  case("npz-of-other-names", BAD, "x.npz", "'image'", "pixels",
       npz(pixels=np.zeros((9, 4)), label=np.zeros(9)), arrays()),
  case("fewer-labels-than-inputs", BAD, "x.npz", "(9, 4)", "(8,)",
       npz(image=np.zeros((9, 4)), label=np.zeros(8)), arrays()),
  case("labels-of-words", BAD, "x.npz, row", "'cat'",
       npz(image=np.zeros((9, 4)), label=np.array(["cat"] * 9)), arrays()),
  case("labels-beyond-the-classes", BAD, "x.npz", "12", "10",
       npz(image=np.zeros((9, 4)), label=np.full(9, 12)), arrays()),
  case("shape-that-does-not-fit", BAD, "x.npz, row", "(3, 3)",
       npz(image=np.zeros((9, 4)), label=np.zeros(9)),
       arrays(", shape=(3, 3)")),
  case("classifier-on-text", BAD, "does not fit", "10 logits",
       change("student=config.Fresh(models.MLPConfig(widths=(8,)))")),
  case("text-method-on-images", BAD, "data", "decoder", "label",
       npz(image=np.zeros((9, 4)), label=np.zeros(9)),
       change("data=data.ArrayData('npz:x.npz', batch_size=8), evals={}")),
]  # fmt: skip

CASES = [*TEXT, *TABLES]
