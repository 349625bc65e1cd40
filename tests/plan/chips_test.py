# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from jdistill import types
from jdistill.plan import chips


@pytest.mark.parametrize(
  ("name", "kind", "devices", "slices"),
  [
    ("v5e:4x4", "v5e", 16, 1),
    ("v5p:4x8x8", "v5p", 256, 1),
    ("v5e:16x16*2", "v5e", 512, 2),
    ("tpu7x:2x2x1", "tpu7x", 8, 1),
  ],
)
def test_names(name, kind, devices, slices):
  found = chips.parse(name)
  assert (found.kind, found.num_devices, found.slices) == (
    kind,
    devices,
    slices,
  )


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:4,4", "4x4", ""])
def test_other_names_are_refused_with_examples(name):
  with pytest.raises(types.UserError, match="v5p:4x8x8"):
    chips.parse(name)
