# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Making students out of teachers: parameters in, parameters out."""

from jdistill.surgery.cut import cut_layers as cut_layers
from jdistill.surgery.cut import evenly_spaced as evenly_spaced
from jdistill.surgery.retokenise import retokenise as retokenise
