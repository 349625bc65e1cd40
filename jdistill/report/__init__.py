# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What runs have come to: a table for terminals, pages for colleagues."""

from jdistill.report.terminal import table as table
from jdistill.report.writing import summary as summary
from jdistill.report.writing import write as write
