# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Text and arrays as deterministic, resumable batches."""

from jdistill.data.aligned import Aligned as Aligned
from jdistill.data.arrays import ArrayData as ArrayData
from jdistill.data.arrays import from_arrays as from_arrays
from jdistill.data.base import Data as Data
from jdistill.data.base import Opened as Opened
from jdistill.data.corpus import Source as Source
from jdistill.data.domains import Domains as Domains
from jdistill.data.loader import Loader as Loader
from jdistill.data.loading import load as load
from jdistill.data.prompts import Prompts as Prompts
from jdistill.data.text import TextData as TextData
from jdistill.data.text import from_documents as from_documents
