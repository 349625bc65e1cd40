# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The transformers library, imported when first needed and without its advice
to install torch, of which nothing here has any use."""

import os
from typing import Any


def transformers() -> Any:
  """The module; importing it takes seconds."""
  variable = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
  before = os.environ.get(variable)
  os.environ[variable] = before or "1"
  try:
    import transformers

    return transformers
  finally:
    if before is None:
      del os.environ[variable]
