# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding: a draft guesses, the target judges, exactly."""

from jdistill.sampling.speculative.drafts import Draft as Draft
from jdistill.sampling.speculative.drafts import ModelDraft as ModelDraft
from jdistill.sampling.speculative.drafts import News as News
from jdistill.sampling.speculative.drafts import Nodes as Nodes
from jdistill.sampling.speculative.feature_draft import (
  FeatureDraft as FeatureDraft,
)
from jdistill.sampling.speculative.generation import Counts as Counts
from jdistill.sampling.speculative.generation import Speculated as Speculated
from jdistill.sampling.speculative.generation import generate as generate
from jdistill.sampling.speculative.measuring import Measured as Measured
from jdistill.sampling.speculative.measuring import lines as lines
from jdistill.sampling.speculative.measuring import measure as measure
from jdistill.sampling.speculative.measuring import summary as summary
from jdistill.sampling.speculative.tree import BestTree as BestTree
from jdistill.sampling.speculative.tree import Tree as Tree
