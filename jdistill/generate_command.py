# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The command that continues texts."""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any


def generate(argv: list[str]) -> int:
  """`jdistill generate REF --prompt TEXT | --prompts FILE`"""
  parser = argparse.ArgumentParser(
    prog="jdistill generate",
    description="Continue a text as it is written, or the prompts of a file: "
    "then one JSON object for each.",
  )
  parser.add_argument("model", metavar="REF")
  given = parser.add_mutually_exclusive_group(required=True)
  given.add_argument("--prompt", metavar="TEXT")
  given.add_argument(
    "--prompts",
    type=pathlib.Path,
    metavar="FILE",
    help='.txt: one a line; .jsonl: objects with "prompt" or "messages"',
  )
  parser.add_argument(
    "--to",
    type=pathlib.Path,
    metavar="FILE",
    help="where the objects go, a .jsonl file (default: standard output)",
  )
  parser.add_argument(
    "--chat", action="store_true", help="put prompts in the chat template"
  )
  _add_sampling(parser)
  parser.add_argument(
    "--stop",
    action="append",
    default=[],
    metavar="TEXT",
    help="cut the answer before this text; may be given several times",
  )
  add(parser, "--batch-size", type=int, default=16, metavar="N",
       help="prompts of a file that are continued at once")  # fmt: skip
  parser.add_argument(
    "--draft",
    metavar="REF",
    help="with --prompt: a small model that guesses; the text is drawn as "
    "without it, sooner if guesses are good; standard error says how good",
  )
  add(parser, "--draft-tokens", type=int, default=4, metavar="N",
       help="guesses in a row")  # fmt: skip
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  args = parser.parse_args(argv)
  if args.to is not None and args.prompts is None:
    parser.error("--to belongs to --prompts")
  if args.draft is not None and (
    args.prompts is not None or args.stop or args.repetition_penalty != 1
  ):
    parser.error(
      "--draft goes with --prompt, and without --stop and --repetition-penalty"
    )
  from jdistill import (
    completions,
    evaluate,
    pretrained,
    refs,
    sampling,
    startup,
    tokenizers,
  )

  names = {f.name for f in dataclasses.fields(sampling.Sampling)}
  settings = sampling.Sampling(
    **{name: value for name, value in vars(args).items() if name in names}
  )
  prompts = None if args.prompts is None else completions.read(args.prompts)
  startup.prepare(refs.cache_directory() / "compiled")
  found = pretrained.find(args.model, dtype=args.dtype)
  tokenizer = tokenizers.load(found.location)
  tokenizers.check_head(tokenizer, found.architecture.vocab_size)
  ends = evaluate.end_ids(tokenizer, found.location)
  if prompts is None:
    _stream(args, settings, found, tokenizer, ends)
    return 0
  ids = [prompt.encode(tokenizer, chat=args.chat) for prompt in prompts]
  answers = completions.complete(
    found.architecture,
    found.params(dtype=args.dtype),
    tokenizer,
    ids,
    settings,
    ends=ends,
    stop=args.stop,
    batch_size=args.batch_size,
    seed=args.seed,
  )
  with _lines_to(args.to) as out:
    for prompt, answer in zip(
      prompts, _progress(answers, len(prompts)), strict=True
    ):
      print(json.dumps(completions.row(prompt.given, answer)), file=out)
  return 0


def _add_sampling(parser: argparse.ArgumentParser) -> None:
  """A flag for each field of `Sampling`."""
  add(parser, "--max-new-tokens", type=int, default=128, metavar="N")
  parser.add_argument(
    "--temperature", type=float, default=0.7, help="0: the likeliest token"
  )
  add(parser, "--top-k", type=int, metavar="K",
       help="draw among so many likeliest tokens")  # fmt: skip
  add(parser, "--top-p", type=float, metavar="P",
       help="draw among the likeliest tokens of this share")  # fmt: skip
  add(parser, "--min-p", type=float, metavar="P",
       help="draw among tokens this share as likely as the best")  # fmt: skip
  add(parser, "--repetition-penalty", type=float, default=1.0, metavar="X",
       help="above 1: less of what is there already")  # fmt: skip


def _stream(args, settings, found, tokenizer, ends) -> None:
  """Shows one text while it is written."""
  import jax

  from jdistill import evaluate, sampling

  prompt = evaluate.encode_prompt(tokenizer, args.prompt, chat=args.chat)
  params = found.params(dtype=args.dtype)
  if not args.chat:
    print(args.prompt, end="", flush=True)
  if args.draft is not None:
    _guessed(args, settings, found, tokenizer, ends, prompt, params)
    return
  sampling.answers(
    found.architecture,
    params,
    [prompt],
    settings,
    key=jax.random.key(args.seed),
    ends=ends,
    on_text=lambda _, text: print(text, end="", flush=True),
    stop=args.stop,
    tokenizer=tokenizer,
  )
  print()


def _guessed(args, settings, found, tokenizer, ends, prompt, params) -> None:
  """The same with a draft, and how it fared."""
  import jax

  from jdistill import speculate
  from jdistill.sampling import speculative, stops

  draft, draft_params = speculate.load_draft(
    args.draft, found, params, tokenizer, args.dtype
  )
  text = stops.Text(tokenizer, ())

  def show(_, token: int) -> None:
    text.add([token])
    print(text.fresh(), end="", flush=True)

  written = speculative.generate(
    found.architecture,
    draft,
    params,
    draft_params,
    [prompt],
    draft_tokens=args.draft_tokens,
    key=jax.random.key(args.seed),
    eos_id=ends,
    on_token=show,
    max_new_tokens=settings.max_new_tokens,
    temperature=settings.temperature,
    top_k=settings.top_k,
    top_p=settings.top_p,
    min_p=settings.min_p,
  )
  print(text.fresh(last=True))
  for line in speculative.lines(speculative.summary([written.counts])):
    print(f"jdistill: {line}", file=sys.stderr)


@contextlib.contextmanager
def _lines_to(path: pathlib.Path | None):
  """Standard output, or a file that is there when all of it is."""
  if path is None:
    yield sys.stdout
    return
  from jdistill import types

  part = path.with_name(f"{path.name}.part")
  try:
    with part.open("w") as out:
      yield out
    part.replace(path)
  except OSError as error:
    raise types.UserError(f"{path}: {error.strerror}") from error


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
  """The same items, counted on standard error if somebody looks."""
  import rich.console
  import rich.progress

  return rich.progress.track(
    items,
    "prompts",
    total=total,
    console=rich.console.Console(stderr=True),
    disable=not sys.stderr.isatty(),
  )


def add(parser: argparse.ArgumentParser, flag: str, **kwargs: Any) -> None:
  """A flag with dashes that may be written with underscores too."""
  other = flag.replace("-", "_").replace("__", "--", 1)
  parser.add_argument(flag, other, **kwargs)
