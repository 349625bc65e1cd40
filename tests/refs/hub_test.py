# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A hub on loopback: the few routes that the hub's library asks for."""

import dataclasses
import hashlib
import http.server
import json
import threading
import urllib.parse

import pytest

from jdistill import refs
from jdistill.types import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"

README = b"---\nlicense: mit\n---\n"
MODEL = {
  "config.json": b"{}",
  "model.safetensors": b"weights",
  "consolidated.safetensors": b"the weights again",
  "pytorch_model.bin": b"a pickle",
  "tokenizer.json": b"{}",
  "README.md": README,
  "onnx/model.json": b"{}",
}


@dataclasses.dataclass
class Hub:
  """What the hub holds, and what it has been asked."""

  repositories: dict[str, dict[str, bytes]]
  gated: tuple[str, ...] = ("big/gated",)
  broken: bool = False
  asked: list[str] = dataclasses.field(default_factory=list)

  def answer(self, path: str, token: str | None):
    """(status, headers, body) for a path without its query."""
    if self.broken:
      return 503, {}, b""
    kind = "models"
    for prefix in ("/api/datasets/", "/datasets/"):
      if path.startswith(prefix):
        kind, path = "datasets", path.replace("/datasets/", "/models/", 1)
    path = path if path.startswith("/api/") else path.replace("/models", "", 1)
    parts = path.strip("/").split("/")
    api = parts[0] == "api"
    parts = parts[2:] if api else parts
    name = f"{kind}/{'/'.join(parts[:2])}"
    if name not in self.repositories:
      return 401, {"X-Error-Code": "RepoNotFound"}, b""
    files = self.repositories[name]
    route, revision, *rest = [*parts[2:], "revision", "main"][:2] + parts[4:]
    if revision not in ("main", COMMIT):
      return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if api:
      return 200, {}, json.dumps(self.listing(name, files, route)).encode()
    if name.partition("/")[2] in self.gated and token != f"Bearer {TOKEN}":
      return 403, {"X-Error-Code": "GatedRepo"}, b""
    file = "/".join(rest)
    if file not in files:
      return 404, {"X-Error-Code": "EntryNotFound"}, b""
    etag = hashlib.sha1(files[file]).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
    return 200, headers, files[file]

  def listing(self, name, files, route):
    if route == "tree":
      return [
        {
          "type": "file",
          "path": path,
          "size": len(data),
          "oid": hashlib.sha1(data).hexdigest(),
        }
        for path, data in files.items()
      ]
    return {
      "id": name.partition("/")[2],
      "sha": COMMIT,
      "tags": ["license:mit"],
      "siblings": [{"rfilename": path} for path in files],
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
  hub = Hub(
    {
      "models/tiny/model": MODEL,
      "models/big/gated": MODEL,
      "models/old/pickled": {"config.json": b"{}", "a.bin": b"x"},
      "datasets/some/chats": {
        "README.md": README,
        "data/train-0.jsonl": b'{"text": "a"}',
        "data/train-1.jsonl": b'{"text": "b"}',
        "data/test-0.jsonl": b'{"text": "c"}',
      },
      "datasets/some/prose": {"README.md": README, "a.parquet": b"PAR1"},
    }
  )

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
      path = urllib.parse.unquote(self.path.partition("?")[0])
      hub.asked.append(path)
      token = self.headers.get("Authorization")
      status, headers, body = hub.answer(path, token)
      self.send_response(status)
      for key, value in headers.items():
        self.send_header(key, value)
      self.send_header("Content-Length", str(len(body)))
      self.end_headers()
      if self.command == "GET":
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
  monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
  monkeypatch.delenv("HF_TOKEN", raising=False)
  yield hub
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.fixture
def locate(tmp_path):
  return lambda ref: refs.locate(ref, cache_dir=tmp_path / "hub")


@pytest.fixture
def locate_data(tmp_path):
  return lambda ref: refs.locate_data(ref, cache_dir=tmp_path / "hub")


def test_a_model_without_its_pickles(hub, locate, gguf_bytes):
  found = locate("hf:tiny/model")
  assert (found.kind, found.licence) == ("huggingface", "mit")
  assert found.name == "tiny/model"
  assert (found.path / "model.safetensors").read_bytes() == b"weights"
  assert (found.path / "tokenizer.json").is_file()
  fetched = " ".join(hub.asked)
  for unwanted in ("pytorch_model.bin", "consolidated", "onnx"):
    assert unwanted not in fetched
  assert locate(f"hf:tiny/model@{COMMIT}").path == found.path


def test_a_gguf_file_of_a_repository(hub, locate, gguf_bytes):
  hub.repositories["models/tiny/model"] = {"q4/m.gguf": gguf_bytes}
  found = locate("hf:tiny/model/q4/m.gguf")
  assert (found.kind, found.licence) == ("gguf", "bsd-3-clause")
  assert found.path.read_bytes() == gguf_bytes
  with pytest.raises(UserError, match=r"such as hf:tiny/model/q4/m\.gguf"):
    locate("hf:tiny/model")
  with pytest.raises(UserError, match=r"did you mean q4/m\.gguf"):
    locate("hf:tiny/model/q5/m.gguf")


def test_a_gated_model_names_the_token(hub, locate, monkeypatch):
  with pytest.raises(UserError, match=r"gated.*HF_TOKEN"):
    locate("hf:big/gated")
  monkeypatch.setenv("HF_TOKEN", TOKEN)
  assert locate("hf:big/gated").kind == "huggingface"


WRONG = {
  "hf:no/such": "knows no no/such",
  "hf:tiny/model@nightly": "no revision 'nightly'",
  "hf:old/pickled": "never fetched",
}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("ref", WRONG, ids=str)
def test_what_cannot_be_had_is_explained(ref, locate):
  with pytest.raises(UserError, match=WRONG[ref]) as caught:
    locate(ref)
  assert not isinstance(caught.value, refs.Unreachable)


def test_offline_the_cache_answers(hub, locate, monkeypatch):
  found = locate("hf:tiny/model")
  monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
  assert locate("hf:tiny/model").path == found.path
  assert locate("hf:tiny/model").licence == "mit"
  with pytest.raises(refs.Unreachable, match="does not answer"):
    locate("hf:other/model")


def test_a_broken_hub_is_unreachable(hub, locate):
  hub.broken = True
  with pytest.raises(refs.Unreachable, match="503"):
    locate("hf:tiny/model")


def test_datasets(hub, locate_data):
  found = locate_data("hf:some/chats/data/train-*.jsonl")
  assert (found.kind, found.name, found.licence) == (
    ("jsonl", "some/chats", "mit")
  )
  assert [p.read_bytes() for p in found.paths] == [
    b'{"text": "a"}',
    b'{"text": "b"}',
  ]
  assert "test-0" not in " ".join(hub.asked)
  assert locate_data("hf:some/prose/a.parquet").kind == "parquet"
  with pytest.raises(UserError, match=r"several splits.*say which"):
    locate_data("hf:some/chats")
  with pytest.raises(UserError, match=r"did you mean data/train"):
    locate_data("hf:some/chats/data/trian-*.jsonl")
