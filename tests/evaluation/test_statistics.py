"""Intervals over seeds, paired differences, and the worst group."""

import json
import math

import numpy as np
import pytest

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.evaluation import Interval, confidence_interval, group_summary, paired_difference

# Two-sided 95 % quantiles of Student's t, from a printed table.
QUANTILES = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262}


def slow_interval(values, quantile):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = quantile * math.sqrt(variance / len(values))
    return mean, mean - half, mean + half


class TestConfidenceInterval:
    @pytest.mark.parametrize("degrees", QUANTILES)
    def test_equals_the_slow_reference(self, degrees):
        values = np.random.default_rng(degrees).normal(0.7, 0.05, degrees + 1)
        expected = slow_interval(values.tolist(), QUANTILES[degrees])
        assert tuple(confidence_interval(values)) == pytest.approx(expected, abs=1e-4)

    def test_by_hand(self):
        # Mean 2, standard deviation 1, three values: 2 +- 4.303 / sqrt(3).
        interval = confidence_interval([1, 2, 3])
        assert interval.mean == 2.0
        assert interval.low == pytest.approx(2 - 2.4841, abs=1e-4)
        assert interval.high == pytest.approx(2 + 2.4841, abs=1e-4)

    def test_a_higher_level_is_wider(self):
        narrow, wide = (confidence_interval([1.0, 2.0, 4.0], level) for level in (0.9, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_one_value_has_no_interval_and_is_json(self):
        interval = confidence_interval([0.7])
        assert interval == Interval(0.7, None, None)
        assert json.dumps(interval._asdict(), allow_nan=False) == (
            '{"mean": 0.7, "low": null, "high": null}'
        )

    def test_equal_values_have_width_zero(self):
        assert confidence_interval([0.1] * 3) == Interval(0.1, 0.1, 0.1)

    def test_covers_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        intervals = [confidence_interval(rng.normal(0.0, 1.0, 5), 0.8) for _ in range(500)]
        covered = sum(interval.low <= 0 <= interval.high for interval in intervals) / 500
        assert 0.74 < covered < 0.86  # three standard errors of a share of .8 in 500

    def test_any_iterable_of_numbers(self):
        expected = confidence_interval([1.0, 2.0])
        assert confidence_interval(iter([1, 2])) == expected
        assert confidence_interval(np.array([1, 2], dtype=np.float32)) == expected

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_values_not_finite(self, bad):
        with pytest.raises(InvalidArgument, match=r"values\[1\]: expected a finite number"):
            confidence_interval([0.5, bad])

    @pytest.mark.parametrize("bad", ["0.5", None, True, [0.5]])
    def test_values_of_wrong_kind(self, bad):
        with pytest.raises(InvalidArgument, match=r"values\[1\]: expected a number, got"):
            confidence_interval([0.5, bad])

    @pytest.mark.parametrize("bad", ["12", 0.5, {0: 0.5}, {0.5}, np.array(0.5), np.zeros((2, 2))])
    def test_not_a_flat_sequence(self, bad):
        with pytest.raises(InvalidArgument, match="values: expected a flat sequence of numbers"):
            confidence_interval(bad)

    def test_no_values(self):
        with pytest.raises(InvalidArgument, match="values: expected at least one value"):
            confidence_interval([])

    @pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan"), "0.95", True])
    @pytest.mark.parametrize("values", [[0.5], [0.5, 0.6]])
    def test_level_out_of_range(self, level, values):
        with pytest.raises(InvalidArgument, match="level: expected a number strictly between"):
            confidence_interval(values, level)


class TestPairedDifference:
    def test_is_the_interval_of_the_differences(self):
        a, b = [0.9, 0.5, 0.7], [0.8, 0.45, 0.55]
        expected = slow_interval([0.1, 0.05, 0.15], QUANTILES[2])
        assert tuple(paired_difference(a, b)) == pytest.approx(expected, abs=1e-4)

    def test_pairing_removes_what_a_seed_does_to_both(self):
        a = [0.5, 0.6, 0.7, 0.8, 0.9]
        b = [value - 0.02 + 0.001 * (-1) ** index for index, value in enumerate(a)]
        low = paired_difference(a, b).low
        assert confidence_interval(a).low < confidence_interval(b).mean  # not told apart unpaired
        assert low is not None
        assert low > 0

    def test_changes_sign_with_the_order(self):
        forth, back = (
            paired_difference([1, 2, 4], [0, 3, 1]),
            paired_difference([0, 3, 1], [1, 2, 4]),
        )
        assert tuple(back) == pytest.approx((-forth.mean, -forth.high, -forth.low))

    def test_one_seed_has_no_interval(self):
        assert paired_difference([0.75], [0.5]) == Interval(0.25, None, None)

    def test_lengths_differ(self):
        with pytest.raises(InvalidArgument, match=r"b: expected 2 values.*got 1"):
            paired_difference([0.5, 0.6], [0.5])

    def test_names_the_side_that_is_wrong(self):
        with pytest.raises(InvalidArgument, match=r"b\[0\]: expected a finite number, got nan"):
            paired_difference([0.5], [float("nan")])


class TestGroupSummary:
    def test_mean_and_worst(self):
        summary = group_summary({"plain": 0.75, "noisy": 0.25, "inverted": 0.5})
        assert summary == {"mean": 0.5, "worst": 0.25, "worst_group": "noisy"}

    def test_of_losses_the_highest_is_the_worst(self):
        summary = group_summary({"plain": 0.75, "noisy": 0.25}, higher_is_better=False)
        assert summary == {"mean": 0.5, "worst": 0.75, "worst_group": "plain"}

    @pytest.mark.parametrize("higher_is_better", [True, False])
    def test_the_first_among_equals(self, higher_is_better):
        summary = group_summary({"b": 0.5, "a": 0.5}, higher_is_better=higher_is_better)
        assert summary["worst_group"] == "b"

    def test_no_group(self):
        with pytest.raises(InvalidArgument, match="per_group: expected at least one group"):
            group_summary({})

    def test_a_group_without_a_number_is_named(self):
        with pytest.raises(InvalidArgument, match=r"per_group\['noisy'\]: expected a finite"):
            group_summary({"plain": 0.5, "noisy": float("nan")})
