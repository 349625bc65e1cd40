# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Exact, sharded, TPU-native distillation of models in JAX and Flax.

Import what you use: `from jdistill import losses` loads jax and jaxtyping
alone; nothing here touches a device.
"""

__version__ = "0.1.0.dev0"
