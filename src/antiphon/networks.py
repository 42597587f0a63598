"""The addresses of one client, by which limits per address count.

Pure: knows nothing of proxies or of connections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable

__all__ = ["network_of"]


def network_of(address: str) -> Hashable:
    """One client's addresses: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.packed[:8]
