"""One-vs-rest metrics, calibrated thresholds and top-1 against slow references."""

import itertools
import sys

import numpy as np
import pytest
import torch

from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.evaluation import calibrate_thresholds, one_vs_rest_metrics, top1_accuracy

SCORES = [[2.0, 1.0, -1.0], [1.0, 3.0, -2.0], [0.5, -1.0, -0.5], [-1.0, -2.0, -3.0]]
LABELS = [0, 1, 2, 0]


def slow_metrics(positive, labels):
    """Counts in plain loops; `positive[i][c]` says whether sample i counts for class c."""
    per_class = []
    for c in range(len(positive[0])):
        tp = fp = fn = tn = 0
        for row, label in zip(positive, labels, strict=True):
            if row[c]:
                tp, fp = tp + (label == c), fp + (label != c)
            else:
                fn, tn = fn + (label == c), tn + (label != c)
        recall = tp / (tp + fn)
        precision = tp / (tp + fp) if tp + fp else 0.0
        per_class.append(((recall + tn / (tn + fp)) / 2, precision, recall))
    means = [sum(column) / len(per_class) for column in zip(*per_class, strict=True)]
    return dict(zip(("balanced_accuracy", "precision", "recall"), means, strict=True))


def slow_balanced_accuracy(scores, is_class, threshold):
    hits = sum(s > threshold for s, y in zip(scores, is_class, strict=True) if y)
    rejections = sum(not s > threshold for s, y in zip(scores, is_class, strict=True) if not y)
    positives = sum(is_class)
    return (hits / positives + rejections / (len(is_class) - positives)) / 2


def random_case(seed, samples=60, classes=4, decimals=1):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, samples - classes)])
    scores = rng.normal(size=(samples, classes)) + (labels[:, None] == np.arange(classes))
    return scores.round(decimals), labels  # rounding makes ties


class TestOneVsRest:
    def test_argmax_by_hand(self):
        # Predicted 0, 1, 0, 0: class 0 hits 2 of 2 with 1 false alarm among 2 others, class 1 is
        # perfect, class 2 is never predicted.
        assert one_vs_rest_metrics(SCORES, LABELS) == pytest.approx(
            {
                "balanced_accuracy": (0.75 + 1 + 0.5) / 3,
                "precision": (2 / 3 + 1 + 0) / 3,
                "recall": (1 + 1 + 0) / 3,
            }
        )

    def test_positive_by_hand(self):
        # Class 0: positive for samples 0, 1, 2, of which one is right of two, two are wrong of
        # two. Class 1: samples 0, 1. Class 2: none.
        assert one_vs_rest_metrics(SCORES, LABELS, rule="positive") == pytest.approx(
            {
                "balanced_accuracy": (0.25 + (1 + 2 / 3) / 2 + 0.5) / 3,
                "precision": (1 / 3 + 1 / 2 + 0) / 3,
                "recall": (1 / 2 + 1 + 0) / 3,
            }
        )

    @pytest.mark.parametrize("seed", range(5))
    def test_equals_the_slow_reference(self, seed):
        scores, labels = random_case(seed)
        limits = np.array([-0.3, 0.0, 0.2, 0.5])
        argmax = [[c == list(row).index(max(row)) for c in range(4)] for row in scores]
        assert one_vs_rest_metrics(scores, labels) == pytest.approx(slow_metrics(argmax, labels))
        assert one_vs_rest_metrics(scores, labels, rule="positive") == pytest.approx(
            slow_metrics([[s > 0 for s in row] for row in scores], labels)
        )
        above = [[s > t for s, t in zip(row, limits, strict=True)] for row in scores]
        assert one_vs_rest_metrics(scores, labels, thresholds=limits) == pytest.approx(
            slow_metrics(above, labels)
        )

    def test_paper_edge_of_thresholded_binary_over_argmax(self):
        # Ten classes, two samples each; every sample is positive for its own class and the next
        # two, and the second sample ranks the next class first. The same scores, counted at
        # logit > 0, gain recall and balanced accuracy and lose precision.
        labels = np.repeat(np.arange(10), 2)
        scores = np.full((20, 10), -5.0)
        for i, label in enumerate(labels):
            own_and_next = [2.0, 1.0] if i % 2 == 0 else [1.0, 2.0]
            scores[i, [label, (label + 1) % 10, (label + 2) % 10]] = [*own_and_next, 0.5]
        argmax = one_vs_rest_metrics(scores, labels)
        binary = one_vs_rest_metrics(scores, labels, rule="positive")
        assert binary["recall"] == 1.0 > argmax["recall"]
        assert argmax["balanced_accuracy"] == pytest.approx((1 / 2 + 17 / 18) / 2)
        assert binary["balanced_accuracy"] == pytest.approx((1 + 14 / 18) / 2)
        assert argmax["precision"] == pytest.approx(1 / 2)
        assert binary["precision"] == pytest.approx(1 / 3)

    def test_a_score_of_zero_is_not_positive(self):
        metrics = one_vs_rest_metrics([[0.0, 1.0], [1.0, 0.0]], [1, 0], rule="positive")
        assert metrics == {"balanced_accuracy": 1.0, "precision": 1.0, "recall": 1.0}

    def test_equal_scores_count_for_the_lowest_class_alone(self):
        assert one_vs_rest_metrics([[1.0, 1.0], [0.0, 1.0]], [0, 1])["recall"] == 1.0

    def test_thresholds_imply_positive_and_equal_it_at_zero(self):
        scores, labels = random_case(7)
        with_zeros = one_vs_rest_metrics(scores, labels, thresholds=np.zeros(4))
        assert with_zeros == one_vs_rest_metrics(scores, labels, rule="positive")
        assert with_zeros == one_vs_rest_metrics(
            scores, labels, rule="positive", thresholds=[0, 0, 0, 0]
        )

    def test_tensors_of_any_float_width_and_integer_labels(self):
        scores, labels = torch.tensor(SCORES), torch.tensor(LABELS, dtype=torch.uint8)
        expected = one_vs_rest_metrics(SCORES, LABELS)
        assert one_vs_rest_metrics(scores, labels) == expected
        assert one_vs_rest_metrics(scores.half(), labels) == expected

    def test_arguments_are_left_as_they_were(self):
        scores, labels = random_case(1)
        kept = scores.copy(), labels.copy()
        one_vs_rest_metrics(scores, labels, thresholds=calibrate_thresholds(scores, labels))
        np.testing.assert_array_equal(scores, kept[0])
        np.testing.assert_array_equal(labels, kept[1])

    def test_results_are_plain_floats(self):
        assert {type(value) for value in one_vs_rest_metrics(SCORES, LABELS).values()} == {float}


class TestCalibration:
    def test_by_hand(self):
        # Class 0: perfect between 1 and 2. Class 1: above 0.2 lie both positives and a negative,
        # above 0.6 one positive alone; 3/4 each, so the smaller value wins.
        scores = [[2.0, 0.4], [3.0, 0.1], [0.0, 0.3], [1.0, 0.9]]
        np.testing.assert_allclose(calibrate_thresholds(scores, [0, 0, 1, 1]), [1.5, 0.2])

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("decimals", [0, 1, 12])
    def test_no_threshold_is_better_and_the_choice_is_as_documented(self, seed, decimals):
        scores, labels = random_case(seed, samples=25, classes=3, decimals=decimals)
        thresholds = calibrate_thresholds(scores, labels)
        for c in range(3):
            column, is_class = scores[:, c].tolist(), (labels == c).tolist()
            distinct = sorted(set(column))
            candidates = [(a + b) / 2 for a, b in itertools.pairwise(distinct)]
            candidates += [min(0.0, distinct[0] - 1e-9), max(0.0, distinct[-1])]
            value = {t: slow_balanced_accuracy(column, is_class, t) for t in candidates}
            best = [t for t in candidates if value[t] > max(value.values()) - 1e-12]
            expected = min(best, key=lambda t: (abs(t), t))
            assert thresholds[c] == pytest.approx(expected, abs=1e-8)
            assert slow_balanced_accuracy(column, is_class, thresholds[c]) == pytest.approx(
                max(value.values())
            )

    def test_raises_balanced_accuracy_of_shifted_scores(self):
        scores, labels = random_case(3, samples=300)
        shifted = scores + np.array([5, -5, 3, 0])
        plain = one_vs_rest_metrics(shifted, labels, rule="positive")
        own = one_vs_rest_metrics(shifted, labels, thresholds=calibrate_thresholds(shifted, labels))
        original = calibrate_thresholds(scores, labels)
        assert own["balanced_accuracy"] > plain["balanced_accuracy"] + 0.05
        assert own["balanced_accuracy"] == pytest.approx(
            one_vs_rest_metrics(scores, labels, thresholds=original)["balanced_accuracy"]
        )

    def test_equally_good_thresholds_smallest_absolute_value_then_lower(self):
        # In column 0 both -1 and 1 give 2/3 of the gain; column 1 only mirrors the labels.
        column = [-2.0, 0.0, 2.0, 0.0]
        labels = [1, 0, 0, 1]
        scores = np.column_stack([column, [0.0, -1.0, -1.0, 0.0]])
        assert calibrate_thresholds(scores, labels).tolist() == [-1.0, -0.5]

    @pytest.mark.parametrize("constant", [-3.0, 0.0, 4.0])
    def test_constant_scores_give_a_finite_threshold_near_zero(self, constant):
        scores = np.column_stack([[constant] * 4, [1.0, 1.0, 2.0, 2.0]])
        first = calibrate_thresholds(scores, [0, 0, 1, 1])[0]
        assert first == 0.0

    def test_reversed_scores_are_no_better_than_chance(self):
        scores = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
        thresholds = calibrate_thresholds(scores, [0, 0, 1, 1])
        assert thresholds.tolist() == [0.0, 2.5]
        assert one_vs_rest_metrics(scores, [0, 0, 1, 1], thresholds=thresholds)[
            "balanced_accuracy"
        ] == pytest.approx(0.75)

    # Halfway rounds to the even neighbour: down to the first of these, up from the second.
    @pytest.mark.parametrize("low", [1.0, float(np.nextafter(1.0, 2.0))])
    def test_neighbouring_floats_are_told_apart(self, low):
        high = float(np.nextafter(low, 2.0))
        scores = np.array([[high, low], [low, high]])
        thresholds = calibrate_thresholds(scores, [0, 1])
        assert one_vs_rest_metrics(scores, [0, 1], thresholds=thresholds)["recall"] == 1.0

    def test_large_scores_do_not_overflow(self):
        scores = np.array([[1.7e308, 0.0], [1.5e308, 1.0]])
        assert calibrate_thresholds(scores, [0, 1]).tolist() == [1.6e308, 0.5]

    def test_order_of_samples_does_not_matter(self):
        scores, labels = random_case(5)
        order = np.random.default_rng(0).permutation(len(labels))
        np.testing.assert_array_equal(
            calibrate_thresholds(scores, labels),
            calibrate_thresholds(scores[order], labels[order]),
        )


class TestTop1:
    def test_by_hand(self):
        assert top1_accuracy(SCORES, LABELS) == 0.75

    def test_classes_may_be_missing(self):
        assert top1_accuracy([[0.0, 1.0, 0.0]], [1]) == 1.0

    def test_equals_the_slow_reference(self):
        scores, labels = random_case(2)
        pairs = zip(scores.tolist(), labels.tolist(), strict=True)
        hits = [row.index(max(row)) == label for row, label in pairs]
        assert top1_accuracy(scores, labels) == pytest.approx(sum(hits) / len(labels))


@pytest.mark.parametrize("function", [one_vs_rest_metrics, calibrate_thresholds, top1_accuracy])
class TestBadSamples:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_scores_not_finite(self, function, bad):
        with pytest.raises(InvalidArgument, match=r"scores: expected finite.*at index \[1, 0\]"):
            function([[1.0, 0.0], [bad, 1.0]], [0, 1])

    @pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0], [2.0]], np.zeros((0, 3)), 1.0])
    def test_scores_of_wrong_shape(self, function, scores):
        with pytest.raises(InvalidArgument, match=r"scores: expected shape \[N, C\].*got \["):
            function(scores, [0, 1])

    @pytest.mark.parametrize("scores", [[[True, False]] * 2, [["a", "b"]] * 2, [[1j, 0]] * 2])
    def test_scores_of_wrong_kind(self, function, scores):
        with pytest.raises(InvalidArgument, match="scores: expected floats, got dtype"):
            function(scores, [0, 1])

    def test_ragged_scores(self, function):
        with pytest.raises(InvalidArgument, match="scores: expected an array of numbers, got list"):
            function([[1.0, 2.0], [1.0]], [0, 1])

    def test_scores_that_need_a_gradient(self, function):
        with pytest.raises(InvalidArgument, match=r"scores: .*tensor\.detach\(\)"):
            function(torch.zeros(2, 2, requires_grad=True), [0, 1])

    @pytest.mark.parametrize("labels", [[0], [0, 1, 1], [[1, 0], [0, 1]], 0])
    def test_labels_of_wrong_shape(self, function, labels):
        with pytest.raises(InvalidArgument, match=r"labels: expected shape \[2\]"):
            function([[1.0, 0.0], [0.0, 1.0]], labels)

    @pytest.mark.parametrize("labels", [[0.0, 1.0], [False, True], ["0", "1"]])
    def test_labels_of_wrong_kind(self, function, labels):
        with pytest.raises(InvalidArgument, match=r"labels: expected integers 0\.\.1, got dtype"):
            function([[1.0, 0.0], [0.0, 1.0]], labels)

    @pytest.mark.parametrize("bad", [-1, 2])
    def test_labels_out_of_range(self, function, bad):
        with pytest.raises(InvalidArgument, match=rf"labels: .*0\.\.1 .*got {bad} at index 1"):
            function([[1.0, 0.0], [0.0, 1.0]], [0, bad])


class TestBadArguments:
    @pytest.mark.parametrize("function", [one_vs_rest_metrics, calibrate_thresholds])
    def test_an_absent_class_is_named(self, function):
        with pytest.raises(InvalidArgument, match=r"each of the 4 classes, got none of class 1, 3"):
            function(np.eye(4), [0, 2, 2, 0])

    @pytest.mark.parametrize("rule", ["max", "", 0, ["argmax"]])
    def test_unknown_rule(self, rule):
        with pytest.raises(
            InvalidArgument, match=r"rule: expected one of \['argmax', 'positive'\]"
        ):
            one_vs_rest_metrics(SCORES, LABELS, rule=rule)

    def test_argmax_uses_no_thresholds(self):
        with pytest.raises(InvalidArgument, match=r"rule: expected 'positive'.*got 'argmax'"):
            one_vs_rest_metrics(SCORES, LABELS, rule="argmax", thresholds=[0, 0, 0])

    @pytest.mark.parametrize("thresholds", [0.0, [0.0], [[0.0, 0.0, 0.0]], [0, 0, 0, 0]])
    def test_thresholds_of_wrong_shape(self, thresholds):
        with pytest.raises(InvalidArgument, match=r"thresholds: expected shape \[3\]"):
            one_vs_rest_metrics(SCORES, LABELS, thresholds=thresholds)

    def test_thresholds_not_finite(self):
        with pytest.raises(InvalidArgument, match=r"thresholds: expected finite.*index \[1\]"):
            one_vs_rest_metrics(SCORES, LABELS, thresholds=[0, float("inf"), 0])

    def test_missing_library_names_the_install_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
        with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[report\]'"):
            top1_accuracy(SCORES, LABELS)
