"""One suite, both twins."""

from __future__ import annotations

import pytest

from tests.wire.twins import Twin, native_twin, pure_twin


@pytest.fixture(params=["pure", "native"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "pure":
        return pure_twin()
    native = native_twin()
    if native is None:
        pytest.skip("the native twin was not built (no compiler at install)")
    return native
