"""The promises of every backend, as tests. Subclass in a test module and say how to make a hub:

    class TestMine(HubContract):
        @pytest.fixture
        def url(self) -> str:
            return "mine://..."

A backend without a URL gives a fixture `hub` instead, with `Hub(topics=OPTIONS, backend=Mine())`.
`ProcessContract` is for backends that span processes, `BrokerContract` for those with something to kill in the middle.
`GateContract`, `GateProcessContract` and `GateBrokerContract` are for those that also keep the state of tickets, quotas
and revocations (`GateBackend`). The tests need pytest with pytest-asyncio in auto mode. Pauses in here are waits for a
condition, with a deadline.
"""

import pytest

# Failing assertions in here should show their values, as in any test module. That has to be declared before the
# imports.
PARTS = ("base", "broker", "gate", "messages", "people", "processes", "recovery", "slow")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in PARTS))

from antiphon.testing.hub_sinks import Connection, RecordingSink, eventually  # noqa: E402

from .base import LEASE, OPTIONS, TOPICS, compose  # noqa: E402
from .broker import Broker, BrokerContract  # noqa: E402
from .gate import GateBrokerContract, GateContract, GateProcessContract  # noqa: E402
from .messages import MessagesContract  # noqa: E402
from .people import PeopleContract  # noqa: E402
from .processes import ProcessContract  # noqa: E402
from .recovery import RecoveryContract  # noqa: E402
from .slow import SlowReceiversContract  # noqa: E402


class HubContract(MessagesContract, RecoveryContract, SlowReceiversContract, PeopleContract):
    """One process.

    For example:

        from antiphon.testing.hub_contract import HubContract
        import pytest

        class TestMine(HubContract):
            @pytest.fixture
            def url(self) -> str:
                return "mine://"
    """


__all__ = [
    "LEASE",
    "OPTIONS",
    "TOPICS",
    "Broker",
    "BrokerContract",
    "Connection",
    "GateBrokerContract",
    "GateContract",
    "GateProcessContract",
    "HubContract",
    "ProcessContract",
    "RecordingSink",
    "compose",
    "eventually",
]
