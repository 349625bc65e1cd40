# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The licence that a model or a package states, as it states it."""

import pathlib
import re

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.S | re.M)
_FIELD = re.compile(r"^(license|license_name)\s*:\s*(.+?)\s*$", re.M)


def of_directory(path: pathlib.Path) -> str | None:
  """From the front matter of README.md, else the first line of LICENSE."""
  stated = _read(path / "README.md")
  if stated and (front := _FRONT_MATTER.search(stated)):
    fields = {
      key: value.strip("'\"[] ") for key, value in _FIELD.findall(front[1])
    }
    if fields.get("license") == "other":
      return fields.get("license_name", "other")
    if "license" in fields:
      return fields["license"]
  for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
    if text := _read(path / name):
      lines = [line.strip(" #*") for line in text.splitlines() if line.strip()]
      if lines:
        return lines[0][:80]
  return None


def of_package(metadata: dict[str, list[str]]) -> str | None:
  """From a wheel's METADATA: expression, field, or classifier."""
  for key in ("license-expression", "license"):
    for value in metadata.get(key, []):
      if value.strip() and value.strip().upper() != "UNKNOWN":
        return value.strip().splitlines()[0][:80]
  for value in metadata.get("classifier", []):
    if value.startswith("License ::"):
      return value.rpartition("::")[2].strip()
  return None


def _read(path: pathlib.Path) -> str | None:
  try:
    with open(path, encoding="utf-8", errors="replace") as file:
      return file.read(1 << 16)
  except OSError:
    return None
