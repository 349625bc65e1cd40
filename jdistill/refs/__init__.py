# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""References to models and data: one string, the same everywhere.

`parse` reads the string and touches nothing; `locate` and `locate_data` find,
fetch and check what it names. See `grammar.GRAMMAR` for what can be written.
"""

from jdistill.refs.cache import Unreachable, cache_directory
from jdistill.refs.datasets import LocatedData, locate_data
from jdistill.refs.grammar import GRAMMAR, Reference, parse
from jdistill.refs.models import Located, locate

__all__ = [
  "GRAMMAR",
  "Located",
  "LocatedData",
  "Reference",
  "Unreachable",
  "cache_directory",
  "locate",
  "locate_data",
  "parse",
]
