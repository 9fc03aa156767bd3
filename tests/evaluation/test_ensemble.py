"""Late fusion: laws of the weights, members matched by what they call a video, gains with honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.errors import ScoresError
from umt.evaluation.ensemble import Member, align
from umt.evaluation.ensemble_report import fixed, report
from umt.evaluation.fusing import MODES, ONE_CLASS, TINY, Mode, fusing
from umt.evaluation.multi_label import MultiLabelScores, merge_sigmoids, sigmoid
from umt.evaluation.multiview import merge

K, R = 5, 12


def member(seed: int = 0, videos: int = R, views: int = 1, name: str = "", **changes: object) -> Member:
    random = np.random.default_rng(seed)
    facts: dict[str, object] = {
        "name": name or f"m{seed}",
        "logits": 2 * random.standard_normal((videos, views, K)),
        "labels": np.arange(videos) % K,
        "paths": tuple(f"videos/v{i}.mp4" for i in range(videos)),
        "unread": np.zeros(videos, bool),
        **changes,
    }
    return Member(**facts)  # type: ignore[arg-type]


def mixed(members: list[Member], weights: list[float] | None, mode: Mode) -> np.ndarray:
    aligned = align(members)
    return aligned.fusing.fuse(aligned.values(mode), weights, mode, aligned.read)[0]


modes = st.sampled_from(MODES)
weights_of = st.lists(st.floats(0, 10), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3)
few = settings(max_examples=30, deadline=None)


# ---- laws of fusing


@few
@given(mode=modes, weights=weights_of, order=st.permutations(range(3)))
def test_the_order_of_the_members_does_not_matter(mode: Mode, weights: list[float], order: list[int]) -> None:
    members = [member(i, views=i + 1) for i in range(3)]
    turned = mixed([members[i] for i in order], [weights[i] for i in order], mode)
    np.testing.assert_allclose(turned, mixed(members, weights, mode), rtol=1e-9)


@few
@given(mode=modes, weights=weights_of, scale=st.floats(1e-6, 1e6))
def test_only_the_proportions_of_the_weights_matter(mode: Mode, weights: list[float], scale: float) -> None:
    members = [member(i) for i in range(3)]
    scaled = mixed(members, [scale * w for w in weights], mode)
    np.testing.assert_allclose(scaled, mixed(members, weights, mode), rtol=1e-9)


@few
@given(mode=modes, weight=st.floats(1e-3, 1e3), views=st.integers(1, 4))
def test_one_member_is_itself(mode: Mode, weight: float, views: int) -> None:
    one = member(3, views=views)
    expected = merge(one.logits[:, :, None])
    if mode == "logits":
        expected = merge(one.logits.mean(1)[:, None, None])
    np.testing.assert_allclose(mixed([one], [weight], mode), expected, rtol=1e-9)


@few
@given(mode=modes, weights=weights_of)
def test_equal_members_are_that_member(mode: Mode, weights: list[float]) -> None:
    same = [member(1, name=str(i)) for i in range(3)]
    np.testing.assert_allclose(mixed(same, weights, mode), mixed(same[:1], None, mode), rtol=1e-9)


@few
@given(mode=modes, weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=2))
def test_a_weight_of_zero_is_without_that_member(mode: Mode, weights: list[float]) -> None:
    members = [member(i) for i in range(3)]
    np.testing.assert_array_equal(mixed(members, [*weights, 0.0], mode), mixed(members[:2], weights, mode))


@few
@given(mode=modes, weights=weights_of)
def test_what_is_fused_are_probabilities(mode: Mode, weights: list[float]) -> None:
    probability = mixed([member(i) for i in range(3)], weights, mode)
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-9)


@few
@given(weights=weights_of)
def test_with_single_views_the_mean_of_logits_is_the_geometric_mean(weights: list[float]) -> None:
    members = [member(i) for i in range(3)]
    np.testing.assert_allclose(mixed(members, weights, "logits"), mixed(members, weights, "geometric"), rtol=1e-8)


def test_the_mean_averages_merged_probabilities() -> None:
    members = [member(1, views=4), member(2)]
    expected = (merge(members[0].logits[:, :, None]) + merge(members[1].logits[:, :, None])) / 2
    np.testing.assert_allclose(mixed(members, None, "mean"), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_views_may_be_merged_before_they_are_fused(mode: Mode) -> None:
    members = [member(1, views=3), member(2, views=5)]
    early = mixed([m.merged(mode) for m in members], [2, 1], mode)
    np.testing.assert_allclose(early, mixed(members, [2, 1], mode), rtol=1e-12)


def test_a_high_temperature_flattens() -> None:
    logits = member(1).logits
    values = ONE_CLASS.values
    assert values(logits, "mean", 100).max() < 0.25 < values(logits, "mean").max()
    np.testing.assert_allclose(values(logits, "mean", 2), values(logits / 2, "mean"), rtol=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(ScoresError, match=r"--weights \(.*\) must be 2 numbers, one for each scores file, none"):
        mixed([member(1), member(2)], weights, "mean")


# ---- videos that could not be read


@pytest.mark.parametrize("mode", MODES)
def test_a_video_that_one_member_could_not_read_is_voted_on_by_the_others(mode: Mode) -> None:
    blind = member(1, unread=np.arange(R) == 4)
    both, other = mixed([blind, member(2)], [3, 1], mode), mixed([member(2)], None, mode)
    np.testing.assert_allclose(both[4], other[4], rtol=1e-12)
    assert not np.allclose(both[5], other[5])


def test_a_video_that_no_member_could_read_is_wrong() -> None:
    blind = [member(i, unread=np.arange(R) == 0, labels=np.zeros(R, int)) for i in (1, 2)]
    aligned = align(blind)
    probability, voted = ONE_CLASS.fuse(aligned.values("mean"), None, "mean", aligned.read)
    assert not ONE_CLASS.outcome(probability, voted, aligned.labels).right[0]
    np.testing.assert_allclose(probability[0], 1 / K)


# ---- matching


def turned(one: Member, order: list[int]) -> Member:
    return one.take(np.array(order))


def test_members_are_matched_by_path_whatever_their_order() -> None:
    one = member(1)
    shuffled = turned(one, [*range(R)][::-1])
    np.testing.assert_allclose(mixed([one, shuffled], None, "mean"), mixed([one], None, "mean"), rtol=1e-12)


def test_a_list_that_names_a_video_twice_is_matched_by_row_too() -> None:
    paths = ("a.mp4",) * 2 + tuple(f"v{i}.mp4" for i in range(R - 2))
    one = member(1, paths=paths, rows=np.arange(R))
    aligned = align([one, turned(one, [1, 0, *range(2, R)])])
    np.testing.assert_array_equal(aligned.members[0].logits, aligned.members[1].logits)
    assert aligned.notes == ("videos are matched by row and path",)


def test_a_list_that_names_a_video_twice_without_rows_is_refused() -> None:
    one = member(1, paths=("a.mp4",) * 2 + tuple(f"v{i}.mp4" for i in range(R - 2)))
    with pytest.raises(ScoresError, match=r"names a more than once"):
        align([one, one])


def test_streams_in_other_folders_with_other_endings_are_matched_by_name() -> None:
    skeletons = turned(member(2, paths=tuple(f"/poses/k/v{i}.npy" for i in range(R))), [*range(R)][::-1])
    aligned = align([member(1), skeletons])
    assert aligned.members[1].paths[3] == "/poses/k/v3.npy"
    assert "without its ending" in aligned.notes[0]


def test_a_video_that_is_missing_is_not_replaced_by_its_namesake() -> None:
    paths = tuple(f"a/v{i}.mp4" for i in range(R))
    with pytest.raises(ScoresError, match=r"m2 has no scores of a/v3\.mp4"):
        align([member(1, paths=paths), member(2, paths=tuple(p.replace("a/v3.mp4", "b/v3.avi") for p in paths))])


def test_the_same_names_in_class_folders_are_told_apart() -> None:
    one = member(1, paths=tuple(f"/a/c{i % 3}/{i // 3}.mp4" for i in range(R)))
    two = member(2, paths=tuple(f"/b/x/c{i % 3}/{i // 3}.mp4" for i in range(R)))
    assert align([one, turned(two, [*range(R)][::-1])]).members[1].paths[1] == "/b/x/c1/0.mp4"


def test_a_video_that_one_member_lacks_is_named() -> None:
    with pytest.raises(ScoresError, match=r"m2 has no scores of videos/v10\.mp4, which m1 has \(2 such videos\)"):
        align([member(1), member(2, videos=10)])


def test_a_member_with_more_videos_than_the_first_is_noticed() -> None:
    with pytest.raises(ScoresError, match=r"m1 has no scores of videos/v10\.mp4, which m2 has"):
        align([member(1, videos=10), member(2)])


def test_the_common_videos_are_taken_when_asked_for() -> None:
    aligned = align([member(1), member(2, videos=10)], common=True)
    assert len(aligned) == 10
    assert aligned.notes == ("10 videos are in all members, of 12, 10",)


def test_members_without_a_common_video_are_refused() -> None:
    with pytest.raises(ScoresError, match="have no video in common"):
        align([member(1), member(2, paths=tuple(f"w{i}.mp4" for i in range(R)))], common=True)


def test_labels_that_differ_are_named() -> None:
    labels = np.arange(R) % K
    labels[2] = 4
    with pytest.raises(ScoresError, match=r"v2\.mp4 has label 4 in m2 and 2 in m1 \(1 of 12 videos differ\)"):
        align([member(1), member(2, labels=labels)])


def test_labels_come_from_whoever_has_them() -> None:
    np.testing.assert_array_equal(align([member(1, labels=np.full(R, -1)), member(2)]).labels, np.arange(R) % K)


def test_a_label_beyond_the_classes_is_named() -> None:
    with pytest.raises(ScoresError, match=r"v4\.mp4: label 5 is outside 0\.\.4"):
        align([member(2), member(1, labels=np.arange(R) % K + 1, class_names=tuple("abcde"))])


def test_a_file_without_videos_is_refused() -> None:
    with pytest.raises(ScoresError, match="m1 holds no video"):
        align([member(1, videos=0)])


def test_another_order_of_the_classes_is_matched_by_name() -> None:
    order = np.array([2, 0, 4, 1, 3])
    names = np.array(list("abcde"))
    one = member(1, class_names=tuple(names))
    back = np.argsort(order)
    two = member(
        1, logits=one.logits[..., order], labels=back[np.arange(R) % K], class_names=tuple(names[order]), name="other"
    )
    aligned = align([one, two])
    np.testing.assert_array_equal(aligned.members[1].logits, one.logits)
    assert "other numbers its classes in another order" in aligned.notes[0]


def test_a_video_without_a_label_stays_so_in_another_order_of_classes() -> None:
    names = tuple("abcde")
    two = member(2, labels=np.full(R, -1), class_names=names[::-1])
    assert (align([member(1, class_names=names), two]).members[1].labels == -1).all()


def test_other_classes_are_named() -> None:
    with pytest.raises(ScoresError, match=r"m2 has a class 'z' that m1 does not have"):
        align([member(1, class_names=tuple("abcde")), member(2, class_names=tuple("abcdz"))])


def test_fewer_classes_are_named() -> None:
    few = member(2, logits=np.zeros((R, 1, K - 1)), labels=np.zeros(R, int), class_names=tuple("abcd"))
    with pytest.raises(ScoresError, match=r"m1 has a class 'e' that m2 does not have: 5 and 4 classes"):
        align([member(1, class_names=tuple("abcde")), few])


def test_a_class_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ScoresError, match="m2 names a class twice"):
        align([member(1, class_names=tuple("aabcd")), member(2, class_names=tuple("abacd"))])


def test_another_number_of_classes_is_refused() -> None:
    wide = member(2, logits=np.zeros((R, 1, K + 1)))
    with pytest.raises(ScoresError, match=r"m2 has 6 classes, m1 has 5"):
        align([member(1), wide])


# ---- the report


def test_what_a_member_adds_is_the_drop_without_it() -> None:
    aligned = align([member(i) for i in range(3)])
    parts = aligned.values("mean")
    weigh = fixed([1, 2, 3], 3, R)
    summary, _, _ = report(aligned, parts, mode="mean", weigh=weigh, shown=np.array([1, 2, 3]) / 6, source="given")
    probability, voted = ONE_CLASS.fuse(parts[:2], [1, 2], "mean", aligned.read[:2])
    others = ONE_CLASS.headline(ONE_CLASS.outcome(probability, voted, aligned.labels))
    assert summary.members[2].without == others
    assert summary.members[2].adds == pytest.approx(summary.merged.top1 - others)


def test_a_report_on_unlabelled_videos_is_refused() -> None:
    aligned = align([member(1, labels=np.where(np.arange(R) == 3, -1, 0))])
    with pytest.raises(ScoresError, match=r"v3\.mp4 has no label \(1 such videos\)"):
        report(aligned, aligned.values("mean"), mode="mean", weigh=fixed(None, 1, R), shown=np.ones(1), source="")


def test_a_probability_of_zero_does_not_outweigh_everything() -> None:
    sure = np.full((1, 1, K), np.log(TINY))
    sure[..., 0] = 0
    probability = mixed([member(1, 1, logits=sure), member(2, 1, logits=sure[..., ::-1])], None, "geometric")
    assert np.isfinite(probability).all()


# ---- several labels a video


def labelled(seed: int, **changes: object) -> Member:
    """A member of a multi-label list: half of all labels are 1."""
    return member(seed, **{"labels": np.random.default_rng(9).integers(2, size=(R, K)), **changes})  # type: ignore[arg-type]


def test_members_of_a_multi_label_list_are_fused_by_the_mean_of_their_sigmoids() -> None:
    members = [labelled(1, views=3), labelled(2)]
    expected = (merge_sigmoids(members[0].logits[:, :, None]) + merge_sigmoids(members[1].logits[:, :, None])) / 2
    np.testing.assert_allclose(mixed(members, None, "mean"), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["logits", "geometric"])
def test_logits_of_a_multi_label_list_are_averaged_class_by_class(mode: Mode) -> None:
    members = [labelled(1), labelled(2)]
    expected = sigmoid((3 * members[0].logits[:, 0] + members[1].logits[:, 0]) / 4)
    np.testing.assert_allclose(mixed(members, [3, 1], mode), expected, rtol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_views_of_a_multi_label_list_may_be_merged_before_they_are_fused(mode: Mode) -> None:
    members = [labelled(1, views=3), labelled(2, views=5)]
    early = mixed([m.merged(mode) for m in members], [2, 1], mode)
    np.testing.assert_allclose(early, mixed(members, [2, 1], mode), rtol=1e-9)


def test_the_report_of_a_multi_label_list_is_in_map() -> None:
    aligned = align([labelled(1), labelled(2)])
    parts = aligned.values("mean")
    summary, probability, _ = report(
        aligned, parts, mode="mean", weigh=fixed(None, 2, R), shown=np.ones(2) / 2, source="equal"
    )
    truth = aligned.labels.astype(bool)
    assert summary.merged == MultiLabelScores.of(probability, truth)
    alone = [MultiLabelScores.of(part, truth).map for part in parts]
    assert [line.without for line in summary.members] == alone[::-1]
    assert summary.gain == summary.merged.map - max(alone)
    low, high = summary.gain_interval
    assert low <= summary.gain <= high
    assert summary.table().splitlines()[0].split() == ["weight", "mAP", "F1", "micro", "adds"]


def test_a_video_of_a_multi_label_list_that_no_member_could_read_has_no_class() -> None:
    aligned = align([labelled(i, unread=np.arange(R) == 0) for i in (1, 2)])
    kind = fusing(multi_label=True)
    for mode in MODES:
        probability, voted = kind.fuse(aligned.values(mode), None, mode, aligned.read)
        assert probability[0].tolist() == [0.0] * K
        assert not kind.outcome(probability, voted, aligned.labels).right[0]


def test_classes_of_a_multi_label_list_are_matched_by_name() -> None:
    one = labelled(1, class_names=tuple("abcde"))
    order = [2, 0, 4, 1, 3]
    names = tuple("abcde"[i] for i in order)
    other = labelled(1, logits=one.logits[..., order], labels=one.labels[:, order], class_names=names, name="other")
    aligned = align([one, other])
    np.testing.assert_array_equal(aligned.members[1].logits, one.logits)
    np.testing.assert_array_equal(aligned.members[1].labels, one.labels)


def test_labels_of_several_classes_that_differ_are_named() -> None:
    labels = labelled(1).labels.copy()
    labels[2] = [0, 1, 0, 0, 1]
    other = member(2, labels=np.where(np.arange(R)[:, None] == 2, 1, labels))
    with pytest.raises(ScoresError, match=r"v2\.mp4 has the labels 0\|1\|2\|3\|4 in m2 and 1\|4 in m1 \(1 of 12"):
        align([member(1, labels=labels), other])


def test_a_multi_label_test_is_not_fused_with_one_of_single_labels() -> None:
    with pytest.raises(ScoresError, match=r"m2 is of a multi-label list, and m1 has a label for each video"):
        align([member(1), labelled(2)])


def test_a_label_of_a_multi_label_list_is_0_or_1() -> None:
    with pytest.raises(ScoresError, match=r"v0\.mp4: label 3 must be 0 or 1, .* in m1\."):
        align([member(1, labels=np.full((R, K), 3))])
