# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Small exact worlds with adjustable noise, for experiments in minutes."""

from jdistill.beds.arithmetic import Arithmetic as Arithmetic
from jdistill.beds.chain_mixture import ChainMixture as ChainMixture
from jdistill.beds.combined import Demonstrated as Demonstrated
from jdistill.beds.combined import Mixed as Mixed
from jdistill.beds.documents import Bed as Bed
from jdistill.beds.documents import BedData as BedData
from jdistill.beds.documents import Document as Document
from jdistill.beds.lesson import Lesson as Lesson
from jdistill.beds.markov import MarkovChain as MarkovChain
from jdistill.beds.trial import small_decoder as small_decoder
