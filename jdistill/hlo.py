# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program holds and sends, read from its text.

`jax.jit(f).lower(...).compile().as_text()` is the program of one device: the
shapes in it are those of that device's shards.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|branch_computations|called_computations"
  r"|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Array:
  """The type of one array on one device."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Its number of elements."""
    return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  `called` maps how a computation is used (`body`, `calls`, ...) to its names;
  `source` is the path of the JAX operation behind it, and `target` the
  function of a custom call.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  called: dict[str, tuple[str, ...]]
  source: str
  target: str

  @property
  def collective(self) -> str | None:
    """The collective that it starts, if any."""
    opcode = self.opcode.removesuffix("-start")
    return opcode if opcode in COLLECTIVES else None


@dataclasses.dataclass(frozen=True)
class Program:
  """Computations by name, and which of them runs first."""

  computations: dict[str, tuple[Instruction, ...]]
  entry: str

  def reached(self, *names: str) -> Iterator[Instruction]:
    """All instructions of computations and of whatever they call."""
    return self._walk(names, lambda _: True)

  def buffers(self) -> Iterator[Instruction]:
    """Instructions whose results are kept in memory: none inside a fusion, a
    reduction or a sort."""
    return self._walk((self.entry,), _is_control)

  def loops(self) -> Iterator[Instruction]:
    """The `while` instructions, those inside of others too."""
    return (i for i in self.buffers() if i.opcode == "while")

  def body(self, loop: Instruction) -> Iterator[Instruction]:
    """Everything that a turn of the loop does."""
    return self.reached(*loop.called["body"], *loop.called["condition"])

  def _walk(self, names, follow) -> Iterator[Instruction]:
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
      name = waiting.pop()
      if name in seen:
        continue
      seen.add(name)
      for instruction in self.computations[name]:
        yield instruction
        if follow(instruction):
          for called in instruction.called.values():
            waiting += called


def parse(text: str) -> Program:
  """Reads the text of a compiled program."""
  computations: dict[str, tuple[Instruction, ...]] = {}
  entry, name, lines = "", "", []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      name, lines = header[2], []
      entry = name if header[1] else entry
    elif line == "}" and name:
      found = (_INSTRUCTION.match(text) for text in lines)
      computations[name] = tuple(_instruction(f[1], f[2]) for f in found if f)
      name = ""
    elif _INSTRUCTION.match(line):
      lines.append(line)
    elif lines:  # a kernel's attributes span several
      lines[-1] += line
  if not entry:
    raise ValueError("no text of a compiled program: it has no ENTRY")
  return Program(computations, entry)


def with_axis(
  program: Program, sizes: Collection[int]
) -> list[tuple[Array, Instruction]]:
  """Arrays in memory that have an axis of one of these sizes, largest first.

  Those of a tuple that only hands others on are left out.
  """
  found = [
    (array, instruction)
    for instruction in program.buffers()
    if instruction.opcode not in ("while", "tuple", "conditional", "call")
    for array in instruction.arrays
    if set(array.shape) & set(sizes)
  ]
  return sorted(found, key=lambda pair: -pair[0].size)


def collectives(
  instructions: Iterator[Instruction],
) -> list[tuple[str, Array, Instruction]]:
  """The collectives among instructions, with their largest array each."""
  return [
    (kind, max(i.arrays, key=lambda a: a.size), i)
    for i in instructions
    if (kind := i.collective)
  ]


def _is_control(instruction: Instruction) -> bool:
  return instruction.opcode in ("while", "conditional", "call")


def _instruction(name: str, rest: str) -> Instruction:
  kind, rest = _split_type(rest)
  opcode = rest.partition("(")[0]
  called = {
    how: tuple(n.strip().lstrip("%") for n in names.strip("{}").split(","))
    for how, names in _CALLED.findall(rest)
  }
  source, target = _OP_NAME.search(rest), _TARGET.search(rest)
  return Instruction(
    name=name,
    opcode=opcode,
    arrays=tuple(
      Array(dtype, tuple(int(n) for n in shape.split(",") if n))
      for dtype, shape in _ARRAY.findall(kind)
    ),
    called=called,
    source=source[1] if source else "",
    target=target[1] if target else "",
  )


def _split_type(text: str) -> tuple[str, str]:
  """The type in front of an instruction, and the rest."""
  if not text.startswith("("):
    kind, _, rest = text.partition(" ")
    return kind, rest
  depth = 0
  for at, char in enumerate(text):
    depth += (char == "(") - (char == ")")
    if depth == 0:
      return text[: at + 1], text[at + 2 :]
  raise ValueError(f"unbalanced type: {text[:80]}")
