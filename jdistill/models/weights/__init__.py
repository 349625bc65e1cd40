# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing models as other programs keep them."""

from jdistill.models.weights.load import load as load
from jdistill.models.weights.load import read_config as read_config
