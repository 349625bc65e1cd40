# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teachers behind an OpenAI-compatible endpoint: vLLM, llama.cpp, others."""

from jdistill.served.answers import Answer as Answer
from jdistill.served.answers import complete as complete
from jdistill.served.client import Client as Client
from jdistill.served.client import Totals as Totals
from jdistill.served.endpoint import Endpoint as Endpoint
from jdistill.served.kept import Kept as Kept
from jdistill.served.top import Dialect as Dialect
from jdistill.served.top import top_log_probs as top_log_probs
