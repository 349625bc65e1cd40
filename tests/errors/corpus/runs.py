# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Run directories, checkpoints and caches."""

import json
import pathlib
import shutil

from corpus.case import case, cut, fields, gone, put, swap

GO_ON = "train tiny.py --workdir run"
READ = "evaluate run"
CACHED = "train tiny.py --teachers.teacher.cache cache"


def emptied(path: str):
  def make(root: pathlib.Path) -> None:
    shutil.rmtree(root / path)
    (root / path).mkdir(parents=True)

  return make


TEXT = "jdistill.data.TextData"


def evals(kind, **more):
  return {"eval": {"type": kind, **more}}


def other_student(root: pathlib.Path) -> None:
  tree = json.loads((root / "run/student.json").read_text())
  tree["width"] = 32
  (root / "run/student.json").write_text(json.dumps(tree))


RUNS = [
  case("run-of-another-config", f"{GO_ON} --seed 3", "run", "seed: 0 -> 3"),
  case("run-that-may-not-go-on", f"{GO_ON} --resume never", "run", "--resume"),
  case("directory-with-other-files", "train tiny.py --workdir teacher.d",
       "teacher.d", "other files", put("teacher.d/thesis.tex", "mine")),
  case("workdir-is-a-file", "train tiny.py --workdir text.jsonl",
       "text.jsonl is a file"),
  case("workdir-below-a-file", "train tiny.py --workdir text.jsonl/run",
       "text.jsonl"),
  case("config-json-damaged", GO_ON, "run/config.json", "JSON",
       cut("run/config.json", 100)),
  case("config-json-empty", GO_ON, "run/config.json", "JSON",
       put("run/config.json")),
  case("config-json-is-a-list", GO_ON, "run/config.json",
       put("run/config.json", "[]")),
  case("config-json-is-a-number", READ, "run/config.json",
       put("run/config.json", "3")),
  case("config-json-of-nothing", READ, "run/config.json",
       put("run/config.json", "{}")),
  case("config-json-of-another-class", GO_ON, "run", "type",
       fields("run/config.json", type="jdistill.config.Confg")),
  case("config-json-with-another-field", GO_ON, "run", "stepz",
       fields("run/config.json", stepz=3)),
  case("config-json-without-a-field", GO_ON, "run", "method",
       fields("run/config.json", method=None)),
  case("config-json-of-no-class", READ, "run/config.json: evals.eval",
       "'os.system'", fields("run/config.json", evals=evals("os.system"))),
  case("config-json-with-a-list-for-a-class", READ, "run/config.json: evals",
       fields("run/config.json", evals=evals(["x"]))),
  case("evals-with-another-field", READ, "run/config.json: evals.eval",
       "stepz", fields("run/config.json", evals=evals(TEXT, stepz=3))),
  case("evals-with-a-field-of-text", READ, "run/config.json: evals.eval",
       "seq_len is 'long'",
       fields("run/config.json", evals=evals(TEXT, seq_len="long"))),
  case("evals-of-another-type", READ, "run/config.json: evals", "data",
       fields("run/config.json", evals={"eval": 3})),
  case("teachers-that-lack-a-field", READ, "run/config.json: teachers.teacher",
       "lacks layers",
       fields("run/config.json",
              teachers={"teacher": {"type": "jdistill.config.Cut"}})),
  case("student-json-gone", READ, "student.json", gone("run/student.json")),
  case("student-json-damaged", READ, "run/student.json", "JSON",
       cut("run/student.json", 50)),
  case("student-json-of-nothing", READ, "run/student.json",
       put("run/student.json", "{}")),
  case("student-json-is-a-number", READ, "run/student.json",
       put("run/student.json", "7")),
  case("student-json-of-texts", READ, "run/student.json", "width",
       fields("run/student.json", width="wide")),
  case("student-of-another-shape", READ, "checkpoints/2", "other arrays",
       other_student),
  case("no-checkpoint-yet", READ, "checkpoint", emptied("run/checkpoints")),
  case("unknown-step", "evaluate run@7", "step 7", "2"),
  case("step-of-no-form", "evaluate run@first", "run@first", "@last"),
  case("best-of-a-run-without-evals", "evaluate run@best", "eval/kl",
       "its step: 2"),
  case("a-step-of-no-run", "evaluate teacher@2", "teacher", "run directory"),
  case("checkpoint-emptied", READ, "checkpoints/2",
       emptied("run/checkpoints/2/state")),
  case("checkpoint-of-garbage", READ, "checkpoints/2",
       swap("run/checkpoints/2/state/_METADATA", lambda data: b"\0" * 90)),
  case("checkpoint-manifest-wrong", READ, "checkpoints/2",
       put("run/checkpoints/2/state/manifest.ocdbt", b"wrong" * 30)),
  case("every-checkpoint-damaged", GO_ON, "no checkpoint", "--workdir",
       put("run/checkpoints/2/state/manifest.ocdbt", b"wrong" * 30)),
  case("tokenizer-of-a-run-gone", READ, "run/tokenizer",
       gone("run/tokenizer/tokenizer.json")),
  case("metrics-without-steps", "report run", "metrics.jsonl",
       put("run/metrics.jsonl", '{"loss": 2}\n{"loss": 3}\n')),
  case("metrics-of-lists", "report run", "metrics.jsonl",
       put("run/metrics.jsonl", "[1]\n[2]\n")),
  case("shardings-damaged", "report run", "shardings.json",
       put("run/shardings.json", "{")),
]  # fmt: skip

CACHES = [
  case("cache-that-is-not-there",
       "train tiny.py --teachers.teacher.cache chace",
       "chace", "does not exist"),
  case("cache-that-is-none", "train tiny.py --teachers.teacher.cache teacher",
       "teacher", "no cache"),
  case("cache-manifest-damaged", CACHED, "cache/manifest.json",
       cut("cache/manifest.json", 30)),
  case("cache-manifest-of-nothing", CACHED, "cache/manifest.json",
       put("cache/manifest.json", "{}")),
  case("cache-of-another-version", CACHED, "cache/manifest.json", "version 99",
       fields("cache/manifest.json", version=99)),
  case("cache-unfinished", CACHED, "cache", "not finished",
       fields("cache/manifest.json", complete=None)),
  case("cache-without-a-signal", CACHED, "cache/manifest.json", "signal",
       fields("cache/manifest.json", signal=None)),
  case("cache-of-a-signal-nobody-knows", CACHED, "cache/manifest.json",
       "'jdistill.cached.Best'",
       fields("cache/manifest.json", signal={"type": "jdistill.cached.Best"})),
  case("cache-of-a-signal-that-is-none", CACHED, "cache/manifest.json",
       fields("cache/manifest.json", signal={"type": "jdistill.methods.KD"})),
  case("cache-list-damaged", CACHED, "cache/00000000.json",
       cut("cache/00000000.json", 20)),
  case("cache-records-gone", CACHED, "00000000.array_record",
       gone("cache/00000000.array_record")),
  case("cache-records-cut-short", CACHED, "00000000.array_record", "bytes",
       cut("cache/00000000.array_record", -100)),
  case("cache-records-of-garbage", CACHED, "cache", "record",
       swap("cache/00000000.array_record", lambda data: b"\7" * len(data))),
  case("cache-of-other-rows",
       f"{CACHED} --data.seq-len 24 --evals.eval.seq-len 24",
       "cache"),
  case("cache-of-ids-that-nobody-drew",
       f"{CACHED} --teachers.teacher.rest drawn",
       "teachers.teacher.rest is 'drawn'"),
  case("cache-and-a-mesh", f"{CACHED} --teachers.teacher.mesh.fsdp 4",
       "teachers.teacher.cache", "teachers.teacher.mesh"),
  case("cache-in-a-directory-of-others", "cache tiny.py --to teacher",
       "teacher"),
  case("cache-to-a-file", "cache tiny.py --to text.jsonl", "text.jsonl"),
  case("cache-of-another-format", "cache tiny.py --to cache --format top_k:8",
       "cache", "k=4", "k=8"),
  case("cache-format-of-no-form", "cache tiny.py --to new --format topk:4",
       "--format", "top_k:K"),
  case("cache-of-no-ids", "cache tiny.py --to new --format top_k:0", "top_k"),
  case("cache-of-no-teacher", "cache tiny.py --to new --teacher big",
       "big", "teacher"),
  case("cache-of-no-stage", "cache tiny.py --to new --stage one", "--stage"),
]  # fmt: skip

CASES = [*RUNS, *CACHES]
