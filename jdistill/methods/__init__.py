# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation methods, one paper a file; this list is the registry."""

from jdistill.methods.adaptive_kl import AdaptiveKL as AdaptiveKL
from jdistill.methods.adaspec import AdaSPEC as AdaSPEC
from jdistill.methods.alm import ALM as ALM
from jdistill.methods.alm_latents import ALMLatents as ALMLatents
from jdistill.methods.alpha_beta import AlphaBetaKD as AlphaBetaKD
from jdistill.methods.base import Context as Context
from jdistill.methods.base import Method as Method
from jdistill.methods.base import Needs as Needs
from jdistill.methods.base import Term as Term
from jdistill.methods.base import TokenMethod as TokenMethod
from jdistill.methods.cross_entropy import CrossEntropy as CrossEntropy
from jdistill.methods.dac_kl import DACKL as DACKL
from jdistill.methods.distillm2 import DistiLLM2 as DistiLLM2
from jdistill.methods.dkd import DKD as DKD
from jdistill.methods.dskd import DSKD as DSKD
from jdistill.methods.eagle import EAGLE as EAGLE
from jdistill.methods.ensemble import Ensemble as Ensemble
from jdistill.methods.features import Features as Features
from jdistill.methods.features import layer_map as layer_map
from jdistill.methods.first import FIRST as FIRST
from jdistill.methods.gold import GOLD as GOLD
from jdistill.methods.grad_mag import GradMag as GradMag
from jdistill.methods.grpo import GRPO as GRPO
from jdistill.methods.hinton import Hinton as Hinton
from jdistill.methods.info_nce import InfoNCE as InfoNCE
from jdistill.methods.jsd import JSD as JSD
from jdistill.methods.kd import KD as KD
from jdistill.methods.mined import MinED as MinED
from jdistill.methods.minillm import MiniLLM as MiniLLM
from jdistill.methods.on_policy import (
  OnPolicyDistillation as OnPolicyDistillation,
)
from jdistill.methods.routed import Routed as Routed
from jdistill.methods.router_balance import RouterBalance as RouterBalance
from jdistill.methods.self_distillation import (
  SelfDistillation as SelfDistillation,
)
from jdistill.methods.skew_kl import SkewKL as SkewKL
from jdistill.methods.span import SpanLoss as SpanLoss
from jdistill.methods.sum import Part as Part
from jdistill.methods.sum import Sum as Sum
from jdistill.methods.uld import ULD as ULD
from jdistill.methods.weighted_kd import WeightedKD as WeightedKD
