# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that write.

`write` is for arrays, inside jit and on a mesh; `generate` for lists of prompts
on the host. What writes is a `memory.Memory`: `memory.of(model)`, or a mix.
"""

from jdistill.sampling.generate import Answer as Answer
from jdistill.sampling.generate import answers as answers
from jdistill.sampling.generate import generate as generate
from jdistill.sampling.memory import Memory as Memory
from jdistill.sampling.mixes import Blend as Blend
from jdistill.sampling.mixes import Interleaved as Interleaved
from jdistill.sampling.settings import Sampling as Sampling
from jdistill.sampling.write import Prompts as Prompts
from jdistill.sampling.write import Written as Written
from jdistill.sampling.write import write as write
