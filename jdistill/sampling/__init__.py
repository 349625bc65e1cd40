# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that write."""

from jdistill.sampling.generate import generate as generate
