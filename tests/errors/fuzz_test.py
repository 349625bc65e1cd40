# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a file or a flag holds is read or refused, soon and in little room."""

import contextlib
import copy
import io
import json
import pathlib
import resource
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jdistill import (
  checkpoint,
  config,
  config_json,
  gguf_file,
  metrics,
  pretrained,
  refs,
  tokenizers,
  types,
)
from jdistill.cached import store
from jdistill.data import corpus, split
from jdistill.models import weights
from jdistill.models.weights import huggingface
from jdistill.plan import chips

SECONDS, BYTES = 10.0, 256 << 20


def examples(few: int, many: int, **more):
  """Runs a test on a few examples, and marked slow on many."""

  def twice(test):
    def of(count):
      return settings(
        max_examples=count,
        deadline=None,
        derandomize=count == few,
        database=None,
        suppress_health_check=list(HealthCheck),
      )

    counts = [few, pytest.param(many, marks=pytest.mark.slow)]

    @pytest.mark.parametrize("count", counts)
    def run(count, plain_world, tmp_path):
      of(count)(given(**more)(lambda **kw: test(plain_world, tmp_path, **kw)))()

    run.__doc__ = test.__doc__
    return run

  return twice


@contextlib.contextmanager
def harmless():
  """What is inside ends well or with a UserError, in bounded time and room."""
  begin = time.process_time()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with contextlib.suppress(types.UserError):
    yield
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert (after - before) * 1024 < BYTES
  assert time.process_time() - begin < SECONDS


@st.composite
def changes(draw):
  """What is done to bytes: pieces cut out, put in or overwritten."""
  kind = st.sampled_from(["cut", "put", "over", "end"])
  at = st.floats(0, 1, exclude_max=True)
  piece = st.binary(min_size=1, max_size=12) | st.sampled_from(
    [b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"[" * 4000, b'"', b"}"]
  )
  one = st.tuples(kind, at, piece)
  return draw(st.lists(one, min_size=1, max_size=4))


def changed(data: bytes, what) -> bytes:
  for kind, share, piece in what:
    at = int(share * len(data))
    if kind == "cut":
      data = data[:at] + data[at + len(piece) :]
    elif kind == "put":
      data = data[:at] + piece + data[at:]
    elif kind == "over":
      data = data[:at] + piece + data[at + len(piece) :]
    else:
      data = data[:at]
  return data


LEAVES = (
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text(max_size=8)
  | st.sampled_from(["jdistill.methods.KD", "os.system", 2**63, -1, 0, 1e308])
)
VALUES = st.recursive(
  LEAVES,
  lambda inside: (
    st.lists(inside, max_size=3)
    | st.dictionaries(st.text(max_size=5) | st.just("type"), inside, max_size=3)
  ),
  max_leaves=5,
)
EDITS = st.lists(st.tuples(st.integers(0, 10**6), VALUES), max_size=3)


def edited(tree, edits):
  """A JSON tree in which some values are others; which, numbers say."""
  for number, value in edits:
    path, node = [], tree
    while isinstance(node, (dict, list)) and node:
      keys = list(node) if isinstance(node, dict) else range(len(node))
      number, which = divmod(number, len(keys) + 1)
      if which == len(keys) and path:
        break
      path.append((node, keys[which % len(keys)]))
      node = path[-1][0][path[-1][1]]
    if path:
      path[-1][0][path[-1][1]] = copy.deepcopy(value)
  return tree


def located(path: pathlib.Path, kind: str) -> refs.Located:
  return refs.Located(str(path), kind, path)


@examples(60, 1500, what=changes())
def test_gguf_files(world, tmp_path, what):
  path = tmp_path / "x.gguf"
  path.write_bytes(changed((world / "teacher.gguf").read_bytes(), what))
  with harmless():
    gguf_file.read_header(path)
    pretrained.find(str(path))
    tokenizers.load(located(path, "gguf"))


@examples(60, 1500, data=st.binary(max_size=400))
def test_any_bytes_as_gguf(world, tmp_path, data):
  path = tmp_path / "x.gguf"
  path.write_bytes(b"GGUF\3\0\0\0" + data)
  with harmless():
    gguf_file.read_header(path)


@examples(60, 1500, what=changes())
def test_safetensors(world, tmp_path, what):
  directory = tmp_path / "model"
  shutil.rmtree(directory, ignore_errors=True)
  shutil.copytree(world / "teacher", directory)
  path = directory / "model.safetensors"
  path.write_bytes(changed(path.read_bytes(), what))
  with harmless():
    weights.load(located(directory, "huggingface"))


@examples(60, 1500, edits=EDITS, what=st.just(()) | changes())
def test_model_configs(world, tmp_path, edits, what):
  fields = json.loads((world / "teacher" / "config.json").read_text())
  text = json.dumps(edited(fields, edits)).encode()
  (tmp_path / "config.json").write_bytes(changed(text, what))
  with harmless():
    huggingface.read_config(tmp_path).shapes()


@examples(25, 625, edits=EDITS, what=st.just(()) | changes())
def test_tokenizers(world, tmp_path, edits, what):
  for name in ("tokenizer.json", "tokenizer_config.json"):
    text = (world / "teacher" / name).read_text()
    text = json.dumps(edited(json.loads(text), edits)).encode()
    (tmp_path / name).write_bytes(changed(text, what))
  with harmless():
    tokenizers.load(str(tmp_path))


@examples(30, 750, what=changes(), format=st.sampled_from(["text", "chat"]))
def test_json_lines(world, tmp_path, what, format):
  path = tmp_path / "x.jsonl"
  lines = (world / "text.jsonl").read_bytes().splitlines(True)[:6]
  path.write_bytes(changed(b"".join(lines), what))
  found = None
  with harmless():
    found = corpus.open_corpus(corpus.Source(f"jsonl:{path}", format))
  for number in range(0 if found is None else len(found)):
    with harmless():
      found[number]


@examples(60, 1500, edits=EDITS)
def test_configs_of_runs(world, tmp_path, edits):
  with contextlib.chdir(world):
    tree = config_json.encode(config.load("tiny.py"))
  tree = edited(json.loads(json.dumps(tree)), edits)
  with harmless():
    config_json.decode(tree)


@examples(40, 1000, text=st.binary(max_size=60), edits=EDITS)
def test_small_files_of_runs(world, tmp_path, text, edits):
  whole = {"version": 1, "signal": {}, "teacher": {}, "data": {}, "head": None}
  tree = edited({**whole, "vocab_size": 3}, edits)
  (tmp_path / "metrics.jsonl").write_bytes(text)
  for name in ("manifest.json", "student.json"):
    (tmp_path / name).write_text(json.dumps(tree))
  for read in (
    lambda: metrics.read(tmp_path),
    lambda: store.read_manifest(tmp_path),
    lambda: pretrained.run_architecture(tmp_path),
    lambda: checkpoint.read_object(tmp_path / "student.json", "version"),
  ):
    with harmless():
      read()


WORD = st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=12)
FLAG = st.sampled_from(
  ["--steps", "--optimizer.lr", "--data.seq-len", "--mesh.fsdp", "--rules",
   "--student.layers", "--teachers.teacher.mesh.data", "--evals.eval.split"]
)  # fmt: skip


@examples(12, 300, words=st.lists(FLAG | WORD | st.just("4"), max_size=4))
def test_flags(world, tmp_path, words):
  with contextlib.chdir(world):
    loaded = config.load("tiny.py")
  said, code = io.StringIO(), 2
  with (
    harmless(),
    contextlib.redirect_stderr(said),
    contextlib.redirect_stdout(said),
  ):
    try:
      config.override(loaded, words)
    except SystemExit as end:
      code = end.code
  assert code == 2 or any(word.startswith("-h") for word in words)


TOPOLOGY = st.from_regex(r"(v5e|v4|gpu|x)?:?[0-9x*\-]{0,12}", fullmatch=True)


@examples(60, 1500, text=WORD | TOPOLOGY)
def test_words(world, tmp_path, text):
  for read in (chips.parse, refs.parse, split.parse):
    with harmless():
      read(text)
