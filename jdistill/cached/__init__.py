# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a teacher said of data, kept on disk and read with them."""

from jdistill.cached.formats import FORMATS as FORMATS
from jdistill.cached.formats import Format as Format
from jdistill.cached.formats import Hidden as Hidden
from jdistill.cached.formats import Sampled as Sampled
from jdistill.cached.formats import TopK as TopK
from jdistill.cached.rows import Said as Said
from jdistill.cached.rows import beside as beside
from jdistill.cached.rows import taken as taken
from jdistill.cached.store import MANIFEST as MANIFEST
from jdistill.cached.store import Cache as Cache
from jdistill.cached.store import Writer as Writer
from jdistill.cached.store import row_key as row_key
from jdistill.cached.teacher import HEAD as HEAD
from jdistill.cached.teacher import HeadOnly as HeadOnly
from jdistill.cached.teacher import Silent as Silent
from jdistill.cached.teacher import left as left
from jdistill.cached.teacher import load_head as load_head
from jdistill.cached.teacher import of_head as of_head
from jdistill.cached.teacher import save_head as save_head
