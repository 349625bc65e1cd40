# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run's own evaluations say of it beyond their averages."""

from jdistill.audit.base import Audit as Audit
from jdistill.audit.base import Chart as Chart
from jdistill.audit.base import Curve as Curve
from jdistill.audit.base import Finding as Finding
from jdistill.audit.base import look as look
from jdistill.audit.base import result as result
from jdistill.audit.base import series as series
from jdistill.audit.hacking import Golden as Golden
from jdistill.audit.hacking import TeacherHacking as TeacherHacking
from jdistill.audit.hacking import Verdict as Verdict
from jdistill.audit.hacking import detect as detect
