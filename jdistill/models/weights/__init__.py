# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing models as other programs keep them."""

from jdistill.models.weights.from_disk import load as load
from jdistill.models.weights.from_disk import read_config as read_config
from jdistill.models.weights.gguf_export import save_gguf as save_gguf
from jdistill.models.weights.huggingface import (
  save_huggingface as save_huggingface,
)
