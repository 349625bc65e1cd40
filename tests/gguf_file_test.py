# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdistill import gguf_file
from jdistill.types import UserError

U32, STRING, ARRAY = 4, 8, 9


def string(text: bytes) -> bytes:
  return struct.pack("<Q", len(text)) + text


def field(key: bytes, kind: int, value: bytes) -> bytes:
  return string(key) + struct.pack("<I", kind) + value


def tensor(name=b"w", shape=(4,), ggml_type=0, offset=0) -> bytes:
  dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
  return string(name) + dims + struct.pack("<IQ", ggml_type, offset)


def raw_file(fields=(), tensors=(), version=3, counts=None, data=b"\0" * 256):
  num_tensors, num_fields = counts or (len(tensors), len(fields))
  start = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields)
  header = start + b"".join(fields) + b"".join(tensors)
  return header + b"\0" * (-len(header) % 32) + data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A file by the reference writer, and the arrays that went into it."""
  path = tmp_path_factory.mktemp("gguf") / "model.gguf"
  writer = gguf.GGUFWriter(path, "llama")
  writer.add_block_count(2)
  writer.add_rope_freq_base(1e5)
  writer.add_bool("a.flag", True)
  writer.add_token_list(["a", "b\u0120", "\U0001f600", ""])
  writer.add_array("a.numbers", [1, -2, 3])
  writer.add_array("a.flags", [True, False])
  rng = np.random.default_rng(0)
  arrays = {
    "full": rng.normal(size=(3, 5)).astype(np.float32),
    "half": rng.normal(size=(7,)).astype(np.float16),
    "quantised": gguf.quants.quantize(
      rng.normal(size=(2, 64)).astype(np.float32),
      gguf.GGMLQuantizationType.Q8_0,
    ),
  }
  writer.add_tensor("full", arrays["full"])
  writer.add_tensor("half", arrays["half"])
  writer.add_tensor(
    "quantised",
    arrays["quantised"],
    raw_dtype=gguf.GGMLQuantizationType.Q8_0,
  )
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path, arrays


def test_reads_what_the_reference_writer_wrote(written):
  path, arrays = written
  header = gguf_file.read_header(path)
  assert header.version == 3
  assert header.metadata["general.architecture"] == "llama"
  assert header.metadata["llama.block_count"] == 2
  assert header.metadata["llama.rope.freq_base"] == pytest.approx(1e5)
  assert header.metadata["a.flag"] is True
  assert header.metadata["tokenizer.ggml.tokens"] == [
    "a",
    "b\u0120",
    "\U0001f600",
    "",
  ]
  np.testing.assert_array_equal(header.metadata["a.numbers"], [1, -2, 3])
  assert header.metadata["a.flags"].dtype == bool
  shapes = {name: info.shape for name, info in header.tensors.items()}
  assert shapes == {"full": (3, 5), "half": (7,), "quantised": (2, 64)}
  for name, array in arrays.items():
    data = gguf_file.tensor_bytes(header, name)
    assert data.tobytes() == array.tobytes()
    assert header.tensors[name].nbytes == array.nbytes
  with pytest.raises(UserError, match="no tensor 'absent'"):
    gguf_file.tensor_bytes(header, "absent")


def test_offsets_equal_the_reference_reader(written):
  path, _ = written
  header = gguf_file.read_header(path)
  for entry in gguf.GGUFReader(path).tensors:
    info = header.tensors[entry.name]
    assert info.offset == entry.data_offset
    assert info.nbytes == entry.n_bytes
    assert info.ggml_type == entry.tensor_type


def test_block_sizes_equal_the_librarys():
  for kind, blocks in gguf.GGML_QUANT_SIZES.items():
    assert gguf_file._BLOCKS.get(int(kind), blocks) == blocks
  assert {0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30} <= set(gguf_file._BLOCKS)


def test_every_truncation_is_refused(written, tmp_path):
  path, _ = written
  data = path.read_bytes()
  end = max(
    info.offset + info.nbytes
    for info in gguf_file.read_header(path).tensors.values()
  )
  cut = tmp_path / "cut.gguf"
  for length in range(end):
    cut.write_bytes(data[:length])
    with pytest.raises(UserError, match=r"cut\.gguf"):
      gguf_file.read_header(cut)


HUGE = 2**64 - 1
HOSTILE = {
  "empty": (b"", "not a GGUF"),
  "magic": (b"PK\3\4" + b"\0" * 100, "not a GGUF"),
  "version": (raw_file(version=9), "version 9"),
  "endian": (raw_file(version=3 << 24), "big-endian"),
  "fields": (raw_file(counts=(0, HUGE)), "fields"),
  "tensors": (raw_file(counts=(HUGE, 0)), "tensors"),
  "key": (raw_file([struct.pack("<Q", HUGE)], counts=(0, 1)), "long"),
  "kind": (raw_file([field(b"k", 77, b"")]), "unknown type 77"),
  "text": (raw_file([field(b"k", STRING, struct.pack("<Q", HUGE))]), "'k'"),
  "numbers": (
    raw_file([field(b"k", ARRAY, struct.pack("<IQ", U32, HUGE // 8))]),
    "'k'",
  ),
  "strings": (
    raw_file([field(b"k", ARRAY, struct.pack("<IQ", STRING, HUGE // 8))]),
    "'k'",
  ),
  "string": (
    raw_file([field(b"k", ARRAY, struct.pack("<IQQ", STRING, 2, HUGE))]),
    "string 0 of 2",
  ),
  "nested": (
    raw_file([field(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 99)]),
    "nests",
  ),
  "twice": (raw_file([field(b"k", U32, b"\0" * 4)] * 2), "twice"),
  "utf8": (
    raw_file(
      [field(b"k", ARRAY, struct.pack("<IQ", STRING, 1) + string(b"\xff"))]
    ),
    "not UTF-8",
  ),
  "alignment": (
    raw_file([field(b"general.alignment", U32, struct.pack("<I", 0))]),
    "alignment",
  ),
  "rank": (raw_file(tensors=[tensor(shape=(1,) * 9)]), "9 axes"),
  "type": (raw_file(tensors=[tensor(ggml_type=4)]), "unknown ggml type 4"),
  "block": (raw_file(tensors=[tensor(shape=(33,), ggml_type=8)]), "blocks"),
  "zero": (raw_file(tensors=[tensor(shape=(4, 0))]), "blocks"),
  "size": (raw_file(tensors=[tensor(shape=(HUGE, HUGE))]), "truncated"),
  "offset": (raw_file(tensors=[tensor(offset=2**63)]), "truncated"),
  "unaligned": (raw_file(tensors=[tensor(offset=1)]), "not aligned"),
  "same name": (raw_file(tensors=[tensor()] * 2), "two tensors"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_files_are_refused_at_once(case, tmp_path):
  data, message = HOSTILE[case]
  path = tmp_path / "hostile.gguf"
  path.write_bytes(data)
  tracemalloc.start()
  start = time.perf_counter()
  with pytest.raises(UserError, match=message) as caught:
    gguf_file.read_header(path)
  assert time.perf_counter() - start < 1
  assert tracemalloc.get_traced_memory()[1] < 4 << 20
  tracemalloc.stop()
  assert str(path) in str(caught.value)


def test_missing_files_and_directories_are_named(tmp_path):
  for path in (tmp_path / "absent.gguf", tmp_path):
    with pytest.raises(UserError, match=path.name):
      gguf_file.read_header(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_give_a_header_or_one_message(written, data):
  path, _ = written
  raw = bytearray(path.read_bytes())
  for _ in range(data.draw(st.integers(1, 3))):
    at = data.draw(st.integers(0, 700))
    raw[at] = data.draw(st.integers(0, 255))
  flipped = path.with_name("flipped.gguf")
  flipped.write_bytes(raw)
  try:
    header = gguf_file.read_header(flipped)
  except UserError:
    return
  for info in header.tensors.values():
    assert info.offset + info.nbytes <= len(raw)


def test_a_large_vocabulary_opens_in_under_a_second(tmp_path):
  tokens = [f"token{i}" for i in range(262_144)]
  values = b"".join(string(token.encode()) for token in tokens)
  array = struct.pack("<IQ", STRING, len(tokens)) + values
  path = tmp_path / "large.gguf"
  path.write_bytes(raw_file([field(b"tokens", ARRAY, array)]))
  start = time.perf_counter()
  header = gguf_file.read_header(path)
  assert time.perf_counter() - start < 1
  assert header.metadata["tokens"] == tokens
