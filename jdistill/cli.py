# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The command line; each command imports what it needs and no more."""

import sys
from collections.abc import Sequence

COMMANDS = (
  "train",
  "cache",
  "evaluate",
  "harness",
  "generate",
  "ask",
  "speculate",
  "export",
  "report",
  "models",
  "shardings",
  "plan",
)

USAGE = """\
usage: jdistill COMMAND ...

Distil a big Flax model into a small one.

  train CONFIG [--workdir DIR] [--resume auto|never] [--any.field VALUE ...]
      start a run, or go on with the one in DIR (default: runs/CONFIG's name);
      --distributed or --coordinator HOST:PORT --process-id I --num-processes N
      where it runs in several processes; --STAGE.field is for one of several
      stages
  cache CONFIG --to DIR [--format top_k:32 | sampled:50 | hidden:int8]
      keep what the teacher says of a run's data, so that runs do without it
  evaluate REF ... [--teacher REF] [--data REF]
      KL to a teacher, perplexity, agreement, bits per byte of models
  harness REF ... --tasks TASK,... [--limit N] [--to FILE]
      tasks of EleutherAI's lm-evaluation-harness
  generate REF --prompt TEXT | --prompts FILE [--to FILE] [--temperature T]
      continue a text as it is written, or each of many
  ask URL --prompts FILE [--to FILE] [--model NAME] [--key-from VARIABLE]
      have a served teacher answer prompts, through an OpenAI-compatible API
  speculate TARGET DRAFT ... --prompts FILE [--draft-tokens N]
      how often a target accepts what drafts guess, and what that saves
  export RUN --to DIR [--format hf|gguf]
      write a student for transformers or llama.cpp
  report RUN ...
      write report.html into a run
  models REF ...
      what a model reference resolves to
  shardings CONFIG [--devices N] [--json] [--any.field VALUE ...]
      which part of each parameter a device of the mesh would hold
  plan CONFIG --topology v5p:4x8x8 [--search] [--any.field VALUE ...]
      compile a run for a pod: memory, traffic, predicted time; --stage NAME for
      one of several, also with shardings

jdistill COMMAND --help tells more. Faults that you can mend end with one
message and exit code 2.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns or raises SystemExit with its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(USAGE, end="")
    return 0 if argv else 2
  if argv[0] == "--version":
    from jdistill import __version__

    print(__version__)
    return 0
  if argv[0] not in COMMANDS:
    return _fail(_unknown(argv[0]))
  import logging

  from jdistill import commands
  from jdistill.types import UserError

  # Orbax warns of every checkpoint that is opened to be read only, and logs
  # errors with their traces before it raises them.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  # Threads of a checkpoint that cannot be read tell of it once more, to nobody.
  told = sys.unraisablehook
  sys.unraisablehook = lambda found: (
    "Event loop is closed" in str(found.exc_value) or told(found)
  )
  try:
    return getattr(commands, argv[0])(argv[1:])
  except UserError as error:
    return _fail(str(error))
  except BrokenPipeError:
    return 0
  except KeyboardInterrupt:
    return 130
  finally:
    sys.unraisablehook = told


def _unknown(name: str) -> str:
  import difflib

  near = difflib.get_close_matches(name, COMMANDS, 1)
  hint = f"; did you mean {near[0]}?" if near else ""
  return f"unknown command {name!r}{hint} (one of {', '.join(COMMANDS)})"


def _fail(message: str) -> int:
  print(f"jdistill: {message}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  sys.exit(main())
