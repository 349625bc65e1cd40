# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Who writes the text that the student learns from."""

from jdistill.rollout.base import Encode as Encode
from jdistill.rollout.base import Pen as Pen
from jdistill.rollout.base import Scene as Scene
from jdistill.rollout.base import Writer as Writer
from jdistill.rollout.base import answered as answered
from jdistill.rollout.compose import Beside as Beside
from jdistill.rollout.compose import Mixture as Mixture
from jdistill.rollout.compose import Part as Part
from jdistill.rollout.compose import Reused as Reused
from jdistill.rollout.models import Blend as Blend
from jdistill.rollout.models import Dataset as Dataset
from jdistill.rollout.models import Interleaved as Interleaved
from jdistill.rollout.models import Student as Student
from jdistill.rollout.models import Teacher as Teacher
from jdistill.rollout.privileged import Privileged as Privileged
from jdistill.rollout.replay import AdaptiveReplay as AdaptiveReplay
from jdistill.rollout.replay import Replay as Replay
from jdistill.rollout.reprompted import Reprompted as Reprompted
from jdistill.rollout.revise import Revised as Revised
from jdistill.rollout.rewards import Answer as Answer
from jdistill.rollout.rewards import ExactMatch as ExactMatch
from jdistill.rollout.rewards import Judged as Judged
from jdistill.rollout.rewards import Reward as Reward
from jdistill.rollout.rewards import read as read
from jdistill.rollout.spans import Spanned as Spanned
from jdistill.rollout.step import KEY as KEY
from jdistill.rollout.step import Write as Write
from jdistill.rollout.step import for_evaluation as for_evaluation
from jdistill.rollout.step import make_rollout as make_rollout
from jdistill.rollout.step import make_tell as make_tell
