"""The cross-correlation matrix as bytes."""

import numpy as np
import pytest
import torch

from barlow_edu.numerics.correlation import from_bytes, to_bytes


@pytest.mark.parametrize("shape", [(3,), (2, 5, 5)])
def test_bytes_keep_zero_and_one_exactly_and_the_rest_within_1_in_254(shape):
    c = np.random.default_rng(0).uniform(-1, 1, shape)
    np.testing.assert_allclose(from_bytes(to_bytes(c)), c, atol=1 / 254 + 1e-6)
    exact = np.array([-1, 0, 1.0])
    np.testing.assert_array_equal(from_bytes(to_bytes(exact)), exact)
    np.testing.assert_array_equal(to_bytes(torch.tensor([-3.0, 1.2])), [0, 254])
