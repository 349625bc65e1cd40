# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Pure, jitted functions on arrays: what differs, where, and how strongly."""

from jdistill.losses.divergences import forward_kl as forward_kl
from jdistill.losses.divergences import jsd as jsd
from jdistill.losses.divergences import reverse_kl as reverse_kl
from jdistill.losses.entropy import cross_entropy as cross_entropy
