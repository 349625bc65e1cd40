# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What each command of the command line does."""

import argparse
import dataclasses
import difflib
import json
import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from jdistill import distributed


def train(argv: list[str]) -> int:
  """`jdistill train CONFIG ...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill train",
    description="Start a run, or go on with the one in its directory.",
    epilog="Every field of the config is a flag: --steps 20 --optimizer.lr "
    "1e-3. `jdistill train CONFIG --fields` lists them. Of several stages "
    "--STAGE.steps 20 is for one, and --steps 20 for all.",
  )
  parser.add_argument(
    "config", help="a Python file with get_config(), or a name: quickstart"
  )
  parser.add_argument(
    "--workdir",
    metavar="DIR",
    help="the run's directory (default: runs/NAME of the config file), or "
    "gs://BUCKET/RUN",
  )
  parser.add_argument("--resume", choices=("auto", "never"), default="auto")
  parser.add_argument(
    "--profile",
    metavar="FIRST:LAST",
    help="trace these steps into profile/ of the run, for xprof or Perfetto",
  )
  parser.add_argument(
    "--fields", action="store_true", help="list the config's flags"
  )
  add_cluster(parser)
  args, rest = _parse(parser, argv)
  if args.fields:
    rest = ["--help"]
  from jdistill import distributed

  with distributed.joined(cluster(args)):
    return _train(args, rest)


def add_cluster(parser: argparse.ArgumentParser) -> None:
  """The flags that say which processes belong together."""
  group = parser.add_argument_group(
    "several processes", "start the same command once for each"
  )
  group.add_argument(
    "--distributed",
    action="store_true",
    help="ask what started them: TPU metadata, GKE, SLURM, Open MPI",
  )
  _add(group, "--coordinator", metavar="HOST:PORT", help="of process 0")
  _add(group, "--process-id", type=int, metavar="I", help="this one, from 0")
  _add(group, "--num-processes", type=int, metavar="N")


def cluster(args: argparse.Namespace) -> "distributed.Cluster":
  """What those flags say."""
  from jdistill import distributed

  return distributed.Cluster(
    args.coordinator, args.process_id, args.num_processes, args.distributed
  )


def _train(args: argparse.Namespace, rest: list[str]) -> int:
  from jdistill import config as config_lib

  config = config_lib.load(args.config, rest)
  from jdistill import distributed, profiling
  from jdistill import train as train_lib
  from jdistill import workdir as workdir_lib

  _prepare()
  workdir = workdir_lib.local(
    args.workdir or pathlib.Path("runs") / pathlib.Path(args.config).stem,
    new=True,
  )
  profile = profiling.Profile.parse(args.profile) if args.profile else None
  try:
    result = train_lib.train(
      config, workdir, resume=args.resume, profile=profile
    )
  except train_lib.Stopped as stopped:
    distributed.log(
      f"jdistill: saved at step {stopped.step} in "
      f"{workdir_lib.name(stopped.workdir)}; the same command goes on from "
      "there"
    )
    return stopped.code
  import jax

  if jax.process_index() != 0:
    return 0
  from rich.console import Console

  from jdistill import report as report_lib

  for name, found in result.get("stages", {"": result}).items():
    page = report_lib.write(workdir / name)
    if name:
      print(f"stage {name}")
    Console().print(report_lib.table(found))
    for audit, one in found.get("audits", {}).items():
      print(f"audit {audit}: {one['said']}")
    print(f"report: {workdir_lib.name(page)}")
  workdir_lib.upload(workdir)
  return 0


def cache(argv: list[str]) -> int:
  """`jdistill cache CONFIG --to DIR`"""
  from jdistill import cache_command, distributed

  parser = cache_command.parser()
  add_cluster(parser)
  args, rest = _parse(parser, argv)
  with distributed.joined(cluster(args)):
    return cache_command.cache(args, rest)


def evaluate(argv: list[str]) -> int:
  """`jdistill evaluate REF ...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill evaluate",
    description="Judge models on held-out text: KL to a teacher, perplexity, "
    "agreement, bits per byte. One JSON line for each model and evaluation.",
    epilog="A run is judged on its own evals and against its first teacher "
    "unless told otherwise; RUN@best and RUN@STEP name checkpoints.",
  )
  parser.add_argument("models", nargs="+", metavar="REF")
  parser.add_argument("--teacher", metavar="REF", help="a model to compare to")
  parser.add_argument(
    "--data", metavar="REF", help="a text, e.g. stdlib:pydoc, jsonl:FILE"
  )
  parser.add_argument(
    "--split", default="", help="which documents of --data, e.g. '[90%%:]'"
  )
  parser.add_argument(
    "--format", choices=("text", "chat", "tokens"), default="text"
  )
  _add(parser, "--seq-len", type=int, help="tokens of a row (512 with --data)")
  _add(parser, "--batch-size", type=int, help="rows judged at once")
  _add(parser, "--max-rows", type=int, help="stop after so many rows")
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  parser.add_argument(
    "--weights",
    choices=("float32", "bfloat16", "int8"),
    help="what the judged models' weights are stored in (default: --dtype), to "
    "measure what that costs against a --teacher in --dtype",
  )
  args = vars(parser.parse_args(argv))
  models = args.pop("models")
  from jdistill import evaluate as evaluate_lib

  _prepare()
  options = evaluate_lib.Options(**args)
  # Printed together at the end: programs read the last lines.
  rows = [row for ref in models for row in evaluate_lib.evaluate(ref, options)]
  for row in rows:
    print(json.dumps(row))
  return 0


def harness(argv: list[str]) -> int:
  """`jdistill harness REF ... --tasks TASK,...`"""
  from jdistill import harness_command

  return harness_command.harness(argv)


def generate(argv: list[str]) -> int:
  """`jdistill generate REF --prompt TEXT | --prompts FILE`"""
  from jdistill import generate_command

  return generate_command.generate(argv)


def ask(argv: list[str]) -> int:
  """`jdistill ask URL --prompts FILE`"""
  from jdistill import ask_command

  return ask_command.ask(argv)


def speculate(argv: list[str]) -> int:
  """`jdistill speculate TARGET DRAFT ... --prompts FILE`"""
  from jdistill import speculate_command

  return speculate_command.speculate(argv)


def export(argv: list[str]) -> int:
  """`jdistill export RUN --to DIR`"""
  parser = argparse.ArgumentParser(
    prog="jdistill export",
    description="Write a student, with its tokenizer, for other programs.",
  )
  parser.add_argument("model", metavar="RUN", help="or RUN@best, RUN@STEP, REF")
  parser.add_argument("--to", required=True, metavar="DIR")
  parser.add_argument(
    "--format",
    choices=("hf", "gguf"),
    default="hf",
    help="hf: a directory for transformers and vLLM; gguf: for llama.cpp",
  )
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16", "float16"),
    default="float32",
    help="of the weights, for hf",
  )
  parser.add_argument(
    "--kind",
    choices=("f32", "f16", "q8_0"),
    default="f16",
    help="of the matrices, for gguf",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an earlier export"
  )
  args = parser.parse_args(argv)
  from jdistill import export as export_lib

  path = export_lib.export(
    args.model,
    args.to,
    format=args.format,
    dtype=args.dtype,
    kind=args.kind,
    overwrite=args.overwrite,
  )
  print(path)
  return 0


def report(argv: list[str]) -> int:
  """`jdistill report RUN ...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill report",
    description="Write report.html: one file, plots included. Several runs "
    "are compared on one page. As markdown or json: a table of final figures "
    "on standard output, runs that differ only in their seed as one row.",
  )
  parser.add_argument("runs", nargs="+", metavar="RUN")
  parser.add_argument(
    "--to",
    type=pathlib.Path,
    metavar="FILE",
    help="default: report.html in the run; in this directory for several",
  )
  parser.add_argument(
    "--format", choices=("html", "markdown", "json"), default="html"
  )
  args = parser.parse_args(argv)
  from jdistill import report as report_lib
  from jdistill import workdir

  runs = [workdir.local(run) for run in args.runs]
  if args.format != "html":
    print(report_lib.summary(*runs, format=args.format))
    return 0
  page = report_lib.write(*runs, to=args.to)
  for run in runs:
    workdir.upload(run)
  print(workdir.name(page))
  return 0


def models(argv: list[str]) -> int:
  """`jdistill models REF ...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill models",
    description="What model references resolve to; no weights are read.",
  )
  parser.add_argument("models", nargs="+", metavar="REF")
  parser.add_argument(
    "--json", action="store_true", help="one JSON line for each model"
  )
  args = parser.parse_args(argv)
  from jdistill import describe

  rows = [describe.model(ref) for ref in args.models]
  if args.json:
    for row in rows:
      print(json.dumps(row))
    return 0
  import rich

  rich.print(describe.table(rows))
  return 0


def plan(argv: list[str]) -> int:
  """`jdistill plan CONFIG --topology NAME`"""
  parser = argparse.ArgumentParser(
    prog="jdistill plan",
    description="Compile a run's train step for chips that need not be here: "
    "does it fit, what does it send, how long will it take. Exit code 1 if it "
    "does not fit or a fault is found.",
    epilog="Every field of the config is a flag, as for train: --mesh.fsdp 64.",
  )
  parser.add_argument(
    "config", help="a Python file with get_config(), or a name: quickstart"
  )
  parser.add_argument(
    "--topology",
    required=True,
    metavar="NAME",
    help="such as v5e:4x4, v5p:4x8x8, v6e:16x16, v5e:16x16*2 for two slices, "
    "gpu:8 (lowered only)",
  )
  _add_stage(parser)
  parser.add_argument(
    "--json", type=pathlib.Path, metavar="FILE", help="write the figures there"
  )
  parser.add_argument(
    "--search",
    action="store_true",
    help="if it does not fit, try what would make it fit",
  )
  args, rest = _parse(parser, argv)
  # The compiler is asked for other chips; those of this machine stay alone.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  from jdistill import config as config_lib
  from jdistill import plan as plan_lib

  config, beside = plan_lib.stage(
    config_lib.load(args.config, rest), args.stage
  )
  topology = plan_lib.parse(args.topology)
  _check_file("--json", args.json)
  made = None
  if topology.chip is None:
    made = plan_lib.lower(config, topology, beside=beside)
    lines = plan_lib.lowered(made)
  else:
    try:
      made = plan_lib.plan(config, topology, beside=beside)
      lines = plan_lib.lines(made)
    except plan_lib.TooLarge as error:
      lines = plan_lib.overflow(topology, error)
  print("\n".join(lines), flush=True)
  if args.json is not None and made is not None:
    args.json.write_text(json.dumps(made.to_json(), indent=1) + "\n")
  if args.search and not (made and made.fits):
    print("changes tried:", flush=True)
    plan_lib.search(
      config,
      topology,
      lambda one: print(plan_lib.tried(one), flush=True),
      beside=beside,
    )
  return 0 if made and made.fits and not made.faults else 1


def shardings(argv: list[str]) -> int:
  """`jdistill shardings CONFIG`"""
  parser = argparse.ArgumentParser(
    prog="jdistill shardings",
    description="Where the parameters of a run would lie on its mesh, and what "
    "a device would hold; no weights are read.",
    epilog="Every field of the config is a flag, as for train: --mesh.fsdp 64.",
  )
  parser.add_argument(
    "config", help="a Python file with get_config(), or a name: quickstart"
  )
  parser.add_argument(
    "--devices",
    type=int,
    metavar="N",
    help="of the mesh; they need not be there (default: this machine's)",
  )
  _add_stage(parser)
  parser.add_argument("--json", action="store_true", help="one JSON object")
  args, rest = _parse(parser, argv)
  from jdistill import config as config_lib
  from jdistill import placement
  from jdistill.plan import planning

  config, beside = planning.stage(
    config_lib.load(args.config, rest), args.stage
  )
  config = planning.self_contained(config)
  found = placement.layout(config, devices=args.devices, beside=beside)
  if args.json:
    print(json.dumps(found))
    return 0
  import rich

  rich.print(placement.table(found))
  return 0


def _parse(
  parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, list[str]]:
  """The command's own flags, and those of a config, which may be any.

  What is nearly a flag of the command and none of a config is said at once:
  whoever reads the others does not know the command's.
  """
  args, rest = parser.parse_known_args(argv)
  for word in rest:
    flag = word.partition("=")[0]
    own = [o for action in parser._actions for o in action.option_strings]
    near = difflib.get_close_matches(flag, own, 1, 0.8)
    if flag.startswith("--") and near and not _is_field(flag):
      parser.error(f"there is no flag {flag}; did you mean {near[0]}?")
  return args, rest


def _is_field(flag: str) -> bool:
  """Whether a config has a field of this name."""
  from jdistill.config import Config

  names = {f.name for f in dataclasses.fields(Config)}
  return flag[2:].partition(".")[0].replace("-", "_") in names


def _add_stage(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--stage", metavar="NAME", help="of a run of several (default: the last)"
  )


def _check_file(flag: str, path: pathlib.Path | None) -> None:
  """Refuses a file that could not be written after all the work."""
  from jdistill import types

  if path is not None and (path.is_dir() or not path.parent.is_dir()):
    what = "is a directory" if path.is_dir() else "its directory is not there"
    raise types.UserError(f"{flag} {path}: {what}; name a file")


def _prepare() -> None:
  from jdistill import refs, startup

  startup.prepare(refs.cache_directory() / "compiled")


def _add(parser: argparse._ActionsContainer, flag: str, **kwargs) -> None:
  """A flag with dashes that may be written with underscores too."""
  other = flag.replace("-", "_").replace("__", "--", 1)
  parser.add_argument(*dict.fromkeys((flag, other)), **kwargs)
