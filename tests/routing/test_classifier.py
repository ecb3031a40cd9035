"""Modules and estimators as routers."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, InvalidGroups, TrainingDiverged
from rtl_plugin.routing import ClassifierRouter
from tests.routing.router_cases import NAMES, Normed, adam, clusters

sklearn = pytest.importorskip("sklearn")


class Fixed(nn.Module):
    """Answers with a given tensor, whatever the input."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer


def test_softmax_of_logits_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [0.0, 0.0, -100.0]])
    router = ClassifierRouter(Fixed(logits), NAMES)
    decision = router.route(torch.zeros(2, 1))
    assert decision.indices is not None
    assert decision.indices.tolist() == [2, 0]
    torch.testing.assert_close(decision.confidence, torch.tensor([5 / 8, 0.5]))
    expected = torch.tensor([1 / 8, 2 / 8, 5 / 8]).log()
    torch.testing.assert_close(router.scores(torch.zeros(2, 1))[0], expected)


def test_fit_learns_and_leaves_the_users_module_alone() -> None:
    module = Normed(3).train()
    kept = copy.deepcopy(module.state_dict())
    router = ClassifierRouter(module, NAMES)
    x, groups = clusters(120)
    router.fit(x, [NAMES[g] for g in groups], optimizer=adam, epochs=10)
    held_out, truth = clusters(60, seed=7)
    indices = router.route(held_out).indices
    assert indices is not None
    assert float((indices == truth).double().mean()) > 0.9
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert module.training
    assert module.head.weight.grad is None
    assert router.classifier is not module
    assert not router.classifier.training
    assert router.classifier.norm.num_batches_tracked == 20, "it was not trained in train mode"
    assert ClassifierRouter(module, NAMES).classifier is module


def test_fit_is_reproducible_and_takes_batches() -> None:
    x, groups = clusters(60)
    made = [
        ClassifierRouter(Normed(3), NAMES).fit(x, groups, optimizer=adam, epochs=2, seed=seed)
        for seed in (1, 1, 2)
    ]
    scores = [router.scores(x) for router in made]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    batches = list(zip(x.split(20), groups.split(20), strict=True))
    from_batches = ClassifierRouter(Normed(3), NAMES).fit(batches, optimizer=adam, epochs=8)
    assert (from_batches.route(x).indices == groups).double().mean() > 0.9


def test_the_loop_by_hand_and_empty_batches() -> None:
    x, groups = clusters(12)
    batches = [(x[:5], groups[:5]), (x[:0], groups[:0]), (x[5:], groups[5:])]
    layer = nn.Linear(4, 3)
    router = ClassifierRouter(layer, NAMES)
    with torch.no_grad():  # as a server may be
        router.fit(batches, optimizer=lambda params: torch.optim.SGD(params, lr=0.5), epochs=2)
    weight, bias = (p.detach().clone() for p in layer.parameters())
    for rows, truth in [batches[0], batches[2]] * 2:
        # The gradient of the mean cross-entropy to the logits is (softmax - one-hot) / B.
        wrong = (rows @ weight.T + bias).softmax(dim=1) - nn.functional.one_hot(truth, 3)
        weight -= 0.5 * wrong.T @ rows / len(rows)
        bias -= 0.5 * wrong.mean(dim=0)
    torch.testing.assert_close(router.classifier.weight.detach(), weight)
    torch.testing.assert_close(router.classifier.bias.detach(), bias)
    assert router.classifier.weight.grad is None, "gradients that nobody needs are kept"


def test_a_schedule_is_stepped() -> None:
    def once(params: list[torch.Tensor]) -> Any:
        optimizer = torch.optim.SGD(params, lr=1.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step == 0)

    layer, made = nn.Linear(4, 3), []
    for epochs in (1, 3):  # one batch each
        router = ClassifierRouter(layer, NAMES).fit(*clusters(9), optimizer=once, epochs=epochs)
        made.append(router.classifier.weight)
    torch.testing.assert_close(made[0], made[1], msg="a rate of 0 moved weights")
    assert not torch.equal(made[0], layer.weight)


def test_what_fit_of_a_module_refuses() -> None:
    x, groups = clusters(9)
    router = ClassifierRouter(nn.Linear(4, 3), NAMES)
    with pytest.raises(InvalidArgument, match="a module needs an optimizer: fit"):
        router.fit(x, groups)
    with pytest.raises(InvalidArgument, match="one-shot iterator cannot be passed over 10 times"):
        router.fit(iter([(x, groups)]), optimizer=adam)
    router.fit(iter([(x, groups)]), optimizer=adam, epochs=1)
    with pytest.raises(InvalidArgument, match="epochs must be a whole number of at least 1"):
        router.fit(x, groups, optimizer=adam, epochs=0)
    with pytest.raises(InvalidGroups, match=r"saw no sample of \['field'\]"):
        router.fit(x, [0, 1, 0] * 3, optimizer=adam)
    with pytest.raises(TrainingDiverged, match="classifier's loss is nan in epoch 1"):
        router.fit(x * float("nan"), groups, optimizer=adam)
    with pytest.raises(InvalidArgument, match=r"must give logits \(9, 3\) for 3 tickets, got a"):
        ClassifierRouter(nn.Linear(4, 5), NAMES).fit(x, groups, optimizer=adam)
    with pytest.raises(InvalidArgument, match="has no parameter that can be trained"):
        ClassifierRouter(Fixed(x), NAMES).fit(x, groups, optimizer=adam)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(2, 4), r"floating logits \(2, 3\) for 3 tickets, got \(2, 4\)"),
        (torch.zeros(1, 3), r"floating logits \(2, 3\) for 3 tickets, got \(1, 3\)"),
        (torch.zeros(2, 3).long(), "must give floating logits"),
        ([torch.zeros(2, 3)], "for 3 tickets, got list"),
        (torch.full((2, 3), float("nan")), "Fixed gave logits with NaN"),
    ],
)
def test_answers_that_do_not_fit(answer: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ClassifierRouter(Fixed(answer), NAMES).route(torch.zeros(2, 1))


class Told:
    """An estimator's answers, given: what a fitted one looks like from outside."""

    def __init__(self, classes: Any, **answers: Any) -> None:
        self.classes_ = np.array(classes)
        for name, answer in answers.items():
            setattr(self, name, lambda x, a=answer: np.array(a))

    def fit(self, x: Any, y: Any) -> Any:
        return self

    def predict(self, x: Any) -> Any:
        return self.classes_[np.zeros(len(x), dtype=int)]


X = torch.zeros(2, 4)
SHUFFLED = ["street", "field", "indoor"]


def test_columns_follow_the_classes_not_the_order() -> None:
    table = [[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]
    decision = ClassifierRouter(Told(SHUFFLED, predict_proba=table), NAMES).route(X)
    assert decision.indices is not None
    assert decision.indices.tolist() == [2, 0]
    torch.testing.assert_close(decision.confidence, torch.tensor([0.7, 0.6]).double())


def test_decision_values_are_softened_and_probabilities_come_first() -> None:
    values = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]
    router = ClassifierRouter(Told([0, 1, 2], decision_function=values), NAMES)
    decision = router.route(X)
    assert decision.indices.tolist() == [2, 0]  # type: ignore[union-attr]
    expected = torch.tensor(values).double().softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(decision.confidence, expected)
    both = Told([0, 1, 2], decision_function=values, predict_proba=[[0.5, 0.5, 0]] * 2)
    assert ClassifierRouter(both, NAMES).route(X).indices.tolist() == [0, 0]  # type: ignore[union-attr]


def test_one_decision_value_speaks_for_the_second_class() -> None:
    told = Told(["b", "a"], decision_function=[math.log(3), -math.log(3)])
    decision = ClassifierRouter(told, ["a", "b"]).route(X)
    assert decision.indices.tolist() == [0, 1]  # type: ignore[union-attr]
    torch.testing.assert_close(decision.confidence, torch.tensor([0.75, 0.75]).double())


def test_predictions_alone_have_no_confidence_and_no_scores() -> None:
    router = ClassifierRouter(Told(SHUFFLED), NAMES)
    decision = router.route(X)
    assert decision.indices.tolist() == [1, 1]  # type: ignore[union-attr]
    assert decision.confidence is None
    with pytest.raises(InvalidArgument, match="Told only predicts classes and scores none"):
        router.scores(X)


@pytest.mark.parametrize(
    ("classes", "mapping"),
    [
        (["indoor", "street"], None),
        (["indoor", "street", "moon"], None),
        (["indoor", "street", "field", "moon"], None),
        ([0, 1, 3], None),
        ([False, True], None),
        ([7, 8, 9], {7: "indoor", 8: "street"}),
        ([7, 8, 9], {7: "indoor", 8: "street", 9: "street"}),
        ([7, 8, 9], {7: "indoor", 8: "street", 9: "moon"}),
    ],
)
def test_classes_that_are_not_the_tickets(classes: Any, mapping: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"Told was fitted on the classes \[.*not the tickets"
    ):
        ClassifierRouter(Told(classes), NAMES, mapping)


def test_classes_may_be_mapped() -> None:
    mapping = {"Innen": "indoor", "Strasse": "street", "Feld": "field"}
    told = Told(["Feld", "Innen", "Strasse"], predict_proba=[[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    assert ClassifierRouter(told, NAMES, mapping).route(X).indices.tolist() == [2, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("answer", [[[0.5, 0.5]] * 2, [[float("nan")] * 3] * 2, [[0.2] * 3]])
def test_estimators_answers_that_do_not_fit(answer: Any) -> None:
    router = ClassifierRouter(Told([0, 1, 2], predict_proba=answer), NAMES)
    with pytest.raises(InvalidArgument, match=r"Told.predict_proba must give \(2, 3\) values with"):
        router.route(X)


def test_pairwise_decision_values_are_refused() -> None:
    from sklearn.svm import SVC

    x, groups = clusters(30)
    one = ClassifierRouter(SVC(decision_function_shape="ovo"), NAMES).fit(x, groups)
    with pytest.raises(InvalidArgument, match="of an SVC ask decision_function_shape='ovr'"):
        one.route(x)
    other = ClassifierRouter(SVC(), NAMES).fit(x, groups)
    assert (other.route(x).indices == groups).double().mean() > 0.9


def test_real_estimators_are_fitted_in_a_copy() -> None:
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, groups = clusters(120)
    held_out, truth = clusters(60, seed=3)
    for estimator in (
        LogisticRegression(),
        RidgeClassifier(),
        KNeighborsClassifier(3),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        router = ClassifierRouter(estimator, NAMES).fit(x, groups)
        decision = router.route(held_out)
        assert (decision.indices == truth).double().mean() > 0.9
        assert not hasattr(estimator, "classes_"), "the user's own was fitted"
        assert decision.confidence is not None
        with pytest.raises(InvalidArgument, match="estimator trains by its own fit: leave optim"):
            router.fit(x, groups, optimizer=adam)


def test_a_refit_replaces_the_mapping() -> None:
    from sklearn.linear_model import LogisticRegression

    x, groups = clusters(60)
    elsewhere = LogisticRegression().fit(x.numpy(), 7 + groups.numpy())
    router = ClassifierRouter(elsewhere, NAMES, {7: "street", 8: "indoor", 9: "field"})
    assert (router.route(x).indices[groups == 0] == 1).all()  # type: ignore[index]
    router.fit(x, groups)
    assert (router.route(x).indices[groups == 0] == 0).all()  # type: ignore[index]


def test_what_the_constructor_refuses() -> None:
    with pytest.raises(InvalidArgument, match=r"a classifier is an nn\.Module or a scikit"):
        ClassifierRouter(object(), NAMES)
    with pytest.raises(InvalidArgument, match="classes= is for estimators"):
        ClassifierRouter(nn.Linear(1, 3), NAMES, {0: "indoor"})


def test_an_estimator_that_is_no_classifier() -> None:
    from sklearn.linear_model import LinearRegression

    with pytest.raises(InvalidArgument, match="has no classes_ after its fit: it is no classifier"):
        ClassifierRouter(LinearRegression(), NAMES).fit(*clusters(9))
    with pytest.raises(InvalidGroups, match=r"saw no sample of \['field'\]"):
        ClassifierRouter(LinearRegression(), NAMES).fit(clusters(2)[0], [0, 1])
