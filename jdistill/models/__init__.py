# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Model families, each an `Architecture` apart from its parameters."""

from jdistill.models.adapters import (
  FunctionArchitecture as FunctionArchitecture,
)
from jdistill.models.adapters import LinenArchitecture as LinenArchitecture
from jdistill.models.adapters import NNXArchitecture as NNXArchitecture
from jdistill.models.base import Architecture as Architecture
from jdistill.models.base import num_params as num_params
from jdistill.models.classifier import ConvConfig as ConvConfig
from jdistill.models.classifier import MLPConfig as MLPConfig
from jdistill.models.decoder import DecoderConfig as DecoderConfig
from jdistill.models.feature_draft import FeatureDraft as FeatureDraft
from jdistill.models.low_rank import LowRank as LowRank
from jdistill.models.rope import Rope as Rope
from jdistill.models.spec import Mixture as Mixture
from jdistill.models.spec import Segment as Segment
