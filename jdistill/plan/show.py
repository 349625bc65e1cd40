# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A plan as people read it."""

from collections.abc import Iterator

from jdistill.plan import chips, planning, remedies

RESOURCES = {
  "compute": "products, at the peak",
  "hbm": "memory traffic",
  "ici": "between chips",
  "dcn": "between slices",
}


def lines(plan: planning.Plan) -> Iterator[str]:
  """The plan, a line at a time; the verdict first."""
  yield verdict(plan)
  sizes = ", ".join(f"{k} {v}" for k, v in plan.mesh.items())
  yield (
    f"mesh: {sizes}; {plan.tokens:,} tokens a step; compiled in "
    f"{plan.compile_s:.0f} s"
  )
  memory = plan.memory
  yield (
    f"memory per device: arguments {_gib(memory.arguments)}, temporaries "
    f"{_gib(memory.temporaries)}, outputs {_gib(memory.outputs)}, program "
    f"{_gib(memory.code)}"
  )
  yield "largest arrays:"
  for line in plan.largest:
    yield f"  {line}"
  counted = plan.flops
  yield (
    f"operations a step: teacher {counted.teacher:.3g}, student "
    f"{counted.student:.3g}; the program computes {counted.program:.3g}"
  )
  yield "a step takes at least (a prediction from published peaks):"
  for name, seconds in plan.seconds.items():
    if seconds:
      yield f"  {1e3 * seconds:10.2f} ms  {name}: {RESOURCES[name]}"
  day = plan.tokens * planning.DAY / plan.step_s
  yield (
    f"predicted, if all overlap: {1e3 * plan.step_s:.1f} ms a step, MFU "
    f"{100 * plan.mfu:.1f} %, {day:.3g} tokens a day, {plan.steps:,} steps in "
    f"{plan.steps * plan.step_s / 3600:.1f} hours"
  )
  yield "sent by each device in a step:"
  for sent in plan.sent:
    way = "DCN" if sent.across_slices else "ICI"
    yield (
      f"  {sent.kind} among {sent.group}: {sent.times:,} times, "
      f"{_mib(sent.payload)} of arrays, {_mib(sent.wire)} over {way}"
    )
  for name, part in plan.apart.items():
    yield from _apart(name, part)
  if plan.writing is not None:
    yield from _writing(plan.writing)
  for fault in plan.faults:
    yield f"FAULT: {fault}"


def _apart(name: str, part: planning.Apart) -> Iterator[str]:
  sizes = ", ".join(f"{k} {v}" for k, v in part.mesh.items())
  memory = part.memory
  yield (
    f"{name}, on devices of its own: mesh {sizes}; {_gib(memory.peak)} per "
    f"device: arguments {_gib(memory.arguments)}, temporaries "
    f"{_gib(memory.temporaries)}, outputs {_gib(memory.outputs)}; compiled in "
    f"{part.compile_s:.0f} s"
  )
  least = ", ".join(
    f"{1e3 * s:.2f} ms {resource}" for resource, s in part.seconds.items() if s
  )
  yield (
    f"  beside the student, a batch ahead, at least: {least}; of each batch "
    f"{_mib(part.moved)} to each device of the student (no time is predicted "
    "for that)"
  )


def _writing(writing: planning.Writing) -> Iterator[str]:
  memory = writing.memory
  yield (
    f"before each step {writing.tokens:,} tokens are written at most: "
    f"{_gib(memory.peak)} per device, arguments {_gib(memory.arguments)}, "
    f"temporaries {_gib(memory.temporaries)}; compiled in "
    f"{writing.compile_s:.0f} s"
  )
  least = ", ".join(
    f"{1e3 * s:.2f} ms {resource}"
    for resource, s in writing.seconds.items()
    if s
  )
  yield f"  at least: {least} (in the prediction above)"


def lowered(found: planning.Lowered) -> Iterator[str]:
  """What is known of a run on GPUs."""
  counted = found.flops
  sizes = ", ".join(f"{k} {v}" for k, v in found.mesh.items())
  yield (
    f"{found.topology.name}: the step lowers for CUDA; its memory and "
    "collectives are the compiler's, which needs a GPU"
  )
  yield f"mesh: {sizes}; {found.tokens:,} tokens a step"
  yield f"weights and optimizer state per device: {_gib(found.arguments)}"
  for name, size in found.apart.items():
    yield f"  {name}, on devices of its own: {_gib(size)}"
  yield (
    f"operations a step: teacher {counted.teacher:.3g}, student "
    f"{counted.student:.3g}; the program computes {counted.program:.3g}"
  )


def verdict(plan: planning.Plan) -> str:
  """Whether it fits, in one line."""
  chip = plan.chip
  share = plan.peak / chip.hbm
  word = "fits" if plan.fits else "DOES NOT FIT"
  return (
    f"{plan.topology.name}, {plan.topology.num_devices} devices: {word}, "
    f"{_gib(plan.peak)} of {_gib(chip.hbm)} per device "
    f"({100 * share:.0f} %)"
  )


def overflow(
  topology: chips.Topology, error: planning.TooLarge
) -> Iterator[str]:
  """What the compiler said of a step that it could not place."""
  yield (
    f"{topology.name}, {topology.num_devices} devices: DOES NOT FIT, "
    f"{error.program} needs {_gib(error.used)} of {_gib(error.limit)} per "
    "device"
  )
  if error.largest:
    yield "largest allocations:"
    for line in error.largest:
      yield f"  {line}"


def tried(one: remedies.Try) -> str:
  """One change and what became of it."""
  flags, made = one
  word = "fits:         " if remedies.fits(made) else "does not fit: "
  used = made.peak if isinstance(made, planning.Plan) else made.used
  return f"  {word}{_gib(used):>10}  {' '.join(flags)}"


def _gib(size: int | float) -> str:
  return f"{size / chips.GIB:.2f} GiB"


def _mib(size: int | float) -> str:
  return f"{size / 2**20:,.1f} MiB"
