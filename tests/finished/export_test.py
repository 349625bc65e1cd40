# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from jdistill import export, pretrained, tokenizers, types
from jdistill.models import weights

TEXT = "The for statement, 123 x; caf\u00e9 <|im_end|>"


def params_of(ref):
  return pretrained.find(str(ref)).params()


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def ids(ref):
  return tokenizers.load(str(ref)).encode(TEXT)


def test_huggingface_is_exact(run, tmp_path):
  path = export.export(str(run), tmp_path / "out")
  assert_same(params_of(path), params_of(run))
  assert ids(path) == ids(run)
  assert tokenizers.load(str(path)).chat_template
  assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_earlier_checkpoint(run, tmp_path):
  path = export.export(f"{run}@2", tmp_path / "out")
  assert_same(params_of(path), params_of(f"{run}@2"))
  leaf = jax.tree.leaves(params_of(path))[0]
  assert not np.array_equal(leaf, jax.tree.leaves(params_of(run))[0])


def test_bfloat16(run, tmp_path):
  path = export.export(str(run), tmp_path / "out", dtype="bfloat16")
  expected = pretrained.find(str(run)).params(dtype="bfloat16")
  _, found = weights.load(pretrained.find(str(path)).location, dtype="bfloat16")
  assert_same(found, expected)


def test_gguf_is_exact_in_float32(run, tmp_path):
  path = export.export(
    str(run), tmp_path / "out.gguf", format="gguf", kind="f32"
  )
  assert_same(params_of(path), params_of(run))
  assert ids(path) == ids(run)
  assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


def test_gguf_into_a_directory_rounds_to_float16(run, tmp_path):
  path = export.export(str(run), tmp_path / "new", format="gguf")
  assert path == tmp_path / "new" / "run.gguf"
  half = pretrained.find(str(run)).params(dtype="float16")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
    params_of(path),
    jax.tree.map(lambda p: np.asarray(p, np.float32), half),
  )


def test_gguf_again_keeps_the_files_own_tokenizer(run, tmp_path):
  first = export.export(str(run), tmp_path / "a.gguf", format="gguf")
  second = export.export(str(first), tmp_path / "b.gguf", format="gguf")
  assert ids(second) == ids(run)


@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_nothing_is_replaced_unasked(format, run, tmp_path):
  target = tmp_path / ("out.gguf" if format == "gguf" else "out")
  export.export(f"{run}@2", target, format=format)
  with pytest.raises(types.UserError, match=r"exists already.*--overwrite"):
    export.export(str(run), target, format=format)
  export.export(str(run), target, format=format, overwrite=True, kind="f32")
  assert_same(params_of(target), params_of(run))
  assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_other_peoples_files_are_never_replaced(run, tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with pytest.raises(types.UserError, match="holds other files"):
    export.export(str(run), tmp_path, overwrite=True)
  assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_directory_is_filled(run, tmp_path):
  (tmp_path / "out").mkdir()
  path = export.export(str(run), tmp_path / "out")
  assert (path / "config.json").is_file()


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise types.UserError("no room")

  monkeypatch.setattr(tokenizers, "save", fail)
  with pytest.raises(types.UserError, match="no room"):
    export.export(str(run), tmp_path / "out")
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_transformers_continues_the_exported_student_alike(
  run, logits_of, tmp_path
):
  torch = pytest.importorskip("torch")
  import transformers

  path = export.export(str(run), tmp_path / "out")
  model = transformers.AutoModelForCausalLM.from_pretrained(path)
  tokenizer = transformers.AutoTokenizer.from_pretrained(path)
  inputs = tokenizer(TEXT, return_tensors="pt")
  assert inputs["input_ids"][0].tolist() == ids(run)
  with torch.no_grad():
    expected = model(inputs["input_ids"]).logits.numpy()
  np.testing.assert_allclose(
    logits_of(str(run), ids(run)), expected[0], atol=1e-4
  )


@pytest.mark.slow
def test_llama_cpp_cuts_and_continues_alike(run, logits_of, tmp_path):
  llama_cpp = pytest.importorskip("llama_cpp")

  path = export.export(
    str(run), tmp_path / "out.gguf", format="gguf", kind="f32"
  )
  f32 = llama_cpp.GGML_TYPE_F32  # its cache rounds to float16 by default
  model = llama_cpp.Llama(
    str(path), logits_all=True, n_ctx=64, type_k=f32, type_v=f32, verbose=False
  )
  tokens = model.tokenize(TEXT.encode(), add_bos=False, special=True)
  assert tokens == ids(run)
  model.eval(tokens)
  np.testing.assert_allclose(
    np.asarray(model.scores)[: len(tokens)],
    logits_of(str(run), tokens),
    atol=1e-3,
  )
