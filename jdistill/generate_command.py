# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The command that continues texts."""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import re
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
    help="where the objects go, a .jsonl file (default: standard output); what "
    "was stopped half-way goes on",
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
  add(parser, "--num-samples", type=int, default=1, metavar="N",
       help="answers to each prompt of a file")  # fmt: skip
  parser.add_argument(
    "--shard",
    default="0/1",
    metavar="I/N",
    help="part I, from 0, of N of all answers, for one of several processes",
  )
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
  if args.draft is not None and args.prompts is not None:
    parser.error(
      "--draft goes with --prompt: the rows of a file have log-probabilities, "
      "which are not kept while a draft guesses"
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
  wanted = None
  if args.prompts is not None:
    wanted = _wanted(args, settings, completions.read(args.prompts))
  startup.prepare(refs.cache_directory() / "compiled")
  found = pretrained.find(args.model, dtype=args.dtype)
  tokenizer = tokenizers.load(found.location)
  tokenizers.check_head(tokenizer, found.architecture.vocab_size)
  ends = evaluate.end_ids(tokenizer, found.location)
  if wanted is None:
    _stream(args, settings, found, tokenizer, ends)
    return 0
  heads = [head for _, _, head in wanted]
  file = None if args.to is None else completions.Kept(args.to, heads)
  left = wanted[0 if file is None else file.done :]
  if file is not None and file.done:
    print(f"jdistill: {args.to}: {file.done} of {len(wanted)} answers are there"
          " already", file=sys.stderr)  # fmt: skip
  answers = completions.complete(
    found.architecture,
    found.params(dtype=args.dtype) if left else None,
    tokenizer,
    [prompt.encode(tokenizer, chat=args.chat) for _, prompt, _ in left],
    settings,
    ends=ends,
    stop=args.stop,
    batch_size=args.batch_size,
    seed=args.seed,
    row_ids=[number for number, _, _ in left],
  )
  out = contextlib.nullcontext(sys.stdout) if file is None else file.writing()
  with out as lines:
    for (_, _, head), answer in zip(
      left, progress(answers, len(left)), strict=True
    ):
      print(json.dumps(completions.row(head, answer)), file=lines, flush=True)
  return 0


def _wanted(args, settings, prompts):
  """Number, prompt and head of each answer that this process is to write."""
  from jdistill import completions, types

  if args.num_samples < 1:
    raise types.UserError(
      f"--num-samples is {args.num_samples}; expected at least 1"
    )
  match = re.fullmatch(r"(\d+)/(\d+)", args.shard)
  part, parts = map(int, match.groups()) if match else (0, 0)
  if part >= parts:
    raise types.UserError(
      f"--shard is {args.shard!r}; expected I/N with I from 0 to N - 1"
    )
  by = {
    "model": args.model,
    "dtype": args.dtype,
    "seed": args.seed,
    **dataclasses.asdict(settings),
    "stop": args.stop,
  }
  numbers = range(len(prompts) * args.num_samples)
  found = []
  for number in numbers[
    len(numbers) * part // parts : len(numbers) * (part + 1) // parts
  ]:
    place, sample = divmod(number, args.num_samples)
    head = completions.head(prompts[place], sample, by, chat=args.chat)
    found.append((number, prompts[place], head))
  return found


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
  if args.draft is not None:
    _guessed(args, settings, found, tokenizer, ends, prompt, params)
    return
  if not args.chat:
    print(args.prompt, end="", flush=True)
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
  from jdistill.sampling import speculative

  draft, draft_params = speculate.load_draft(
    args.draft, found, params, tokenizer, args.dtype
  )
  if not args.chat:
    print(args.prompt, end="", flush=True)
  written = speculative.generate(
    found.architecture,
    draft,
    params,
    draft_params,
    [prompt],
    draft_tokens=args.draft_tokens,
    key=jax.random.key(args.seed),
    eos_id=ends,
    on_text=lambda _, text: print(text, end="", flush=True),
    stop=args.stop,
    tokenizer=tokenizer,
    max_new_tokens=settings.max_new_tokens,
    temperature=settings.temperature,
    top_k=settings.top_k,
    top_p=settings.top_p,
    min_p=settings.min_p,
    repetition_penalty=settings.repetition_penalty,
  )
  print()
  for line in speculative.lines(speculative.summary([written.counts])):
    print(f"jdistill: {line}", file=sys.stderr)


def progress(items: Iterable[Any], total: int) -> Iterable[Any]:
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
  parser.add_argument(*dict.fromkeys((flag, other)), **kwargs)
