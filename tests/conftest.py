"""What the tests of several folders share."""

import pytest
from tiny import tiny_encoder


@pytest.fixture(scope="module")
def registered():
    """The encoder that trains in a second has the name "tiny"."""
    with tiny_encoder():
        yield
