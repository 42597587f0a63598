"""Shares of limits: the books of a store, against a simple model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.claims import Claims
from antiphon.hub.store import Store

steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "evict", "again", "release", "drop"]),
        st.sampled_from("kl"),
        st.integers(0, 6),
        st.sampled_from("pq"),
    ),
    max_size=60,
)


@given(steps)
def test_a_limit_is_kept_in_the_order_they_came(steps: list[tuple[str, str, int, str]]) -> None:
    claims = Claims()
    model: dict[str, dict[str, str]] = {"k": {}, "l": {}}
    for what, key, number, process in steps:
        ref, refs = f"r{number}", model[key]
        if what == "drop":
            claims.drop_process(process)
            model = {name: {r: p for r, p in held.items() if p != process} for name, held in model.items()}
        elif what == "release":
            claims.release(key, ref)
            refs.pop(ref, None)
        else:
            limit = None if what == "again" else 3
            found = claims.claim(key, ref, process, limit, what == "evict")
            over = 0 if limit is None or ref in refs else len(refs) + 1 - limit
            if over > 0 and what == "claim":
                assert found is None
            else:
                assert found == tuple(refs)[: max(over, 0)]
                for gone in found:
                    del refs[gone]
                refs[ref] = process
        for name, held in model.items():
            assert claims.count(name) == len(held)
            assert claims.holders(name) == set(held.values())
    for process in "pq":
        claims.drop_process(process)
    assert not claims._names
    assert not claims._processes


def test_a_lease_that_ran_out_frees_shares_and_says_when_it_will() -> None:
    store = Store(epoch="e", version=0)
    store.renew("p", 10.0)
    assert store.claim("k", "a", "p", 1, False, 0.0).granted
    refused = store.claim("k", "b", "q", 1, False, 4.0)
    assert (refused.granted, refused.wait) == (False, 6.0)
    store.sweep(10.0)
    assert store.claim("k", "b", "q", 1, False, 10.0).granted
