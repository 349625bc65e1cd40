# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Pure, jitted functions on arrays: what differs, where, and how strongly."""

from jdistill.losses.adaptive import adaptive_kl as adaptive_kl
from jdistill.losses.alpha_beta import alpha_beta as alpha_beta
from jdistill.losses.contrastive import info_nce as info_nce
from jdistill.losses.divergences import forward_kl as forward_kl
from jdistill.losses.divergences import jeffreys as jeffreys
from jdistill.losses.divergences import jsd as jsd
from jdistill.losses.divergences import reverse_kl as reverse_kl
from jdistill.losses.divergences import skew_forward_kl as skew_forward_kl
from jdistill.losses.divergences import skew_reverse_kl as skew_reverse_kl
from jdistill.losses.divergences import total_variation as total_variation
from jdistill.losses.entropy import cross_entropy as cross_entropy
from jdistill.losses.entropy import dkd as dkd
from jdistill.losses.entropy import entropy as entropy
from jdistill.losses.entropy import hinton as hinton
from jdistill.losses.entropy import soft_cross_entropy as soft_cross_entropy
from jdistill.losses.features import cosine as cosine
from jdistill.losses.features import layer_mean as layer_mean
from jdistill.losses.features import layer_pairs as layer_pairs
from jdistill.losses.features import mse as mse
from jdistill.losses.features import project as project
from jdistill.losses.features import smooth_l1 as smooth_l1
from jdistill.losses.walk import walk as walk
from jdistill.losses.walk import walk_tokens as walk_tokens
from jdistill.losses.weights import match_vocab as match_vocab
from jdistill.losses.weights import mean_one as mean_one
from jdistill.losses.weights import token_scores as token_scores
