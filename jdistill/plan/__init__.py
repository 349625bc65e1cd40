# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run needs of a pod, before the pod is paid for."""

from jdistill.plan.chips import CHIPS as CHIPS
from jdistill.plan.chips import Chip as Chip
from jdistill.plan.chips import Topology as Topology
from jdistill.plan.chips import parse as parse
from jdistill.plan.planning import Flops as Flops
from jdistill.plan.planning import Lowered as Lowered
from jdistill.plan.planning import Memory as Memory
from jdistill.plan.planning import Plan as Plan
from jdistill.plan.planning import TooLarge as TooLarge
from jdistill.plan.planning import lower as lower
from jdistill.plan.planning import plan as plan
from jdistill.plan.planning import self_contained as self_contained
from jdistill.plan.planning import stage as stage
from jdistill.plan.remedies import search as search
from jdistill.plan.show import lines as lines
from jdistill.plan.show import lowered as lowered
from jdistill.plan.show import overflow as overflow
from jdistill.plan.show import tried as tried
