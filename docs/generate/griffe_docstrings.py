# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The extension of griffe, which reads the package for the reference pages."""

import pathlib
import sys
from typing import Any

import griffe

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import docstrings


class Docstrings(griffe.Extension):
  """Turns every docstring into Markdown as it is read."""

  def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = docstrings.markdown(obj.docstring.value)
