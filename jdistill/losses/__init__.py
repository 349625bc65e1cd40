# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Pure, jitted functions on arrays: what differs, where, and how strongly."""

from jdistill.losses.acceptance import acceptance as acceptance
from jdistill.losses.acceptance import block_efficiency as block_efficiency
from jdistill.losses.adaptive import adaptive_kl as adaptive_kl
from jdistill.losses.alpha_beta import alpha_beta as alpha_beta
from jdistill.losses.chunks import at_chunks as at_chunks
from jdistill.losses.chunks import chunk_ends as chunk_ends
from jdistill.losses.chunks import chunk_places as chunk_places
from jdistill.losses.chunks import chunk_starts as chunk_starts
from jdistill.losses.chunks import chunk_sums as chunk_sums
from jdistill.losses.chunks import (
  likelihood_difference as likelihood_difference,
)
from jdistill.losses.chunks import merge_chunks as merge_chunks
from jdistill.losses.coarse import coarse as coarse
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
from jdistill.losses.ordered import jsd_of_masses as jsd_of_masses
from jdistill.losses.ordered import sorted_l1 as sorted_l1
from jdistill.losses.policy import clipped_surrogate as clipped_surrogate
from jdistill.losses.policy import discounted_returns as discounted_returns
from jdistill.losses.policy import group_advantages as group_advantages
from jdistill.losses.policy import k1 as k1
from jdistill.losses.policy import k2 as k2
from jdistill.losses.policy import k3 as k3
from jdistill.losses.policy import place_in_document as place_in_document
from jdistill.losses.policy import truncated_weights as truncated_weights
from jdistill.losses.policy import whiten as whiten
from jdistill.losses.support import mass_gate as mass_gate
from jdistill.losses.support import on_top as on_top
from jdistill.losses.walk import walk as walk
from jdistill.losses.walk import walk_tokens as walk_tokens
from jdistill.losses.weights import match_vocab as match_vocab
from jdistill.losses.weights import mean_one as mean_one
from jdistill.losses.weights import token_scores as token_scores
from jdistill.losses.weights import top_fraction as top_fraction
