"""Which ticket a sample goes through."""

from rtl_plugin.routing.classifier import ClassifierRouter as ClassifierRouter
from rtl_plugin.routing.confidence import ConfidenceRouter as ConfidenceRouter
from rtl_plugin.routing.confidence_threshold import ConfidenceThreshold as ConfidenceThreshold
from rtl_plugin.routing.contract import OutputRouter as OutputRouter
from rtl_plugin.routing.contract import Router as Router
from rtl_plugin.routing.contract import RoutingDecision as RoutingDecision
from rtl_plugin.routing.epsilon_greedy import EpsilonGreedyRouter as EpsilonGreedyRouter
from rtl_plugin.routing.feedback import Outcome as Outcome
from rtl_plugin.routing.known_group import KnownGroupRouter as KnownGroupRouter
from rtl_plugin.routing.nearest_centroid import NearestCentroidRouter as NearestCentroidRouter
from rtl_plugin.routing.one_vs_rest import OneVsRestRouter as OneVsRestRouter
from rtl_plugin.routing.online import OnlineRouter as OnlineRouter
from rtl_plugin.routing.stochastic_ensemble import (
    StochasticEnsembleRouter as StochasticEnsembleRouter,
)
from rtl_plugin.routing.thompson_sampling import ThompsonSamplingRouter as ThompsonSamplingRouter
from rtl_plugin.routing.top_n import TopNRouter as TopNRouter
