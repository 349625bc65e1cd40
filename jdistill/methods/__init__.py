# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation methods, one paper a file; this list is the registry."""

from jdistill.methods.base import Context as Context
from jdistill.methods.base import Method as Method
from jdistill.methods.base import Needs as Needs
from jdistill.methods.base import Term as Term
from jdistill.methods.base import TokenMethod as TokenMethod
from jdistill.methods.cross_entropy import CrossEntropy as CrossEntropy
from jdistill.methods.kd import KD as KD
from jdistill.methods.sum import Part as Part
from jdistill.methods.sum import Sum as Sum
