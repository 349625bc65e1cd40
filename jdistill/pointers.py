# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Files whose content Git LFS has left elsewhere."""

import os

_BEGIN = b"version https://git-lfs"


def hint(path: str | os.PathLike[str]) -> str:
  """What a message about a file that cannot be read should add, if anything."""
  try:
    with open(path, "rb") as file:
      found = file.read(len(_BEGIN))
  except OSError:
    return ""
  if found != _BEGIN:
    return ""
  return "; it is the pointer of Git LFS: `git lfs pull` fetches the file"
