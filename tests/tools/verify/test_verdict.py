"""When two numbers agree, when they differ, and when there are too few videos to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.tools.verify.verdict import judge, missing_allowance, wilson

NARROW, WIDE = (87.0, 87.8), (80.0, 94.0)


def test_on_the_whole_list_a_tenth_of_a_point_is_allowed() -> None:
    words = [judge(m, 87.4, interval=WIDE, videos=20, official=20).word for m in (87.29, 87.3, 87.5, 87.51)]
    assert words == ["differs", "agrees", "agrees", "differs"]


def test_missing_videos_allow_for_more() -> None:
    verdict = judge(87.2, 87.4, interval=NARROW, videos=19_000, official=19_906)
    assert verdict.word == "agrees"
    assert verdict.tolerance == pytest.approx(0.1 + verdict.allowance)
    assert 0.09 < verdict.allowance < 0.11


def test_a_stated_tolerance_is_the_whole_tolerance() -> None:
    verdict = judge(87.2, 87.4, interval=NARROW, videos=19_000, official=19_906, tolerance=0.15)
    assert (verdict.word, verdict.tolerance, verdict.allowance) == ("differs", 0.15, 0)


def test_few_videos_near_the_number_say_nothing() -> None:
    verdict = judge(87.4, 87.4, interval=WIDE, videos=100, official=19_906)
    assert verdict.word == "cannot say"
    assert "100 of 19906 videos: the 95 % interval is 14.0 points wide, more than 2" in verdict.why


def test_few_videos_far_from_the_number_differ() -> None:
    assert judge(3.0, 87.4, interval=(0.0, 7.0), videos=100, official=19_906).word == "differs"


def test_two_videos_prove_nothing_though_both_are_wrong() -> None:
    assert judge(0.0, 87.4, interval=(0.0, 0.0), videos=2, official=19_906).word == "cannot say"


def test_few_videos_outside_a_stated_tolerance_but_within_chance_say_nothing() -> None:
    assert judge(85.0, 87.4, interval=WIDE, videos=100, official=19_906, tolerance=0.1).word == "cannot say"


def test_a_wider_interval_may_be_accepted() -> None:
    verdict = judge(87.4, 87.4, interval=WIDE, videos=100, official=19_906, max_interval=15)
    assert verdict.word == "agrees"


def test_a_list_with_more_videos_than_the_official_one_lacks_none() -> None:
    assert missing_allowance(87.4, 20_000, 19_906) == 0
    assert missing_allowance(87.4, 20_000, None) == 0


@settings(max_examples=50, deadline=None)
@given(expected=st.floats(0, 100), official=st.integers(2, 10**5), share=st.floats(0.01, 1))
def test_more_videos_never_allow_for_more(expected: float, official: int, share: float) -> None:
    videos = max(1, int(share * official))
    assert missing_allowance(expected, videos, official) >= missing_allowance(expected, videos + 1, official) >= 0


def test_the_interval_of_wilson_is_his() -> None:
    """0 of 10 and 5 of 10: the closed forms z^2 / (n + z^2), and 1/2 plus or minus z / (2 sqrt(n + z^2))."""
    z2 = 1.96**2
    assert wilson(0, 10) == pytest.approx((0, 100 * z2 / (10 + z2)), abs=1e-9)
    half = 100 * 1.96 / (2 * (10 + z2) ** 0.5)
    assert wilson(50, 10) == pytest.approx((50 - half, 50 + half))


def test_the_allowance_is_what_leaving_videos_out_by_chance_makes() -> None:
    random = np.random.default_rng(0)
    right = np.arange(2000) < 1748  # 87.4 %
    drawn = [100 * random.permutation(right)[:1500].mean() for _ in range(2000)]
    within = np.mean(np.abs(np.array(drawn) - 87.4) <= missing_allowance(87.4, 1500, 2000))
    assert within == pytest.approx(0.95, abs=0.02)
