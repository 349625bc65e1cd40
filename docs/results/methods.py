# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The experiments behind docs/results.md, as data, in the page's order.

Somebody who adds a method adds its config, an experiment in one of these files,
and then runs `python docs/results/run.py NAME` and `python
docs/results/page.py`.
"""

import drafts
import hacking
import on_chains
import on_signals
import on_sums
import teachers

EXPERIMENTS = {
  experiment.name: experiment
  for experiment in (
    on_chains.GKD,
    on_chains.ON_POLICY,
    on_chains.MINILLM,
    on_chains.DISTILLM,
    on_chains.DISTILLM2,
    on_chains.REVISION,
    on_sums.SEQKD,
    on_sums.IMITKD,
    on_sums.SDFT,
    on_sums.SDPO,
    on_sums.KDRL,
    drafts.DISTILLSPEC,
    drafts.ADASPEC,
    hacking.HACKING,
    on_signals.SPARSE,
    on_signals.FIRST,
    on_signals.GRAD_MAG,
    teachers.ENSEMBLE,
    teachers.ROUTED,
  )
}
