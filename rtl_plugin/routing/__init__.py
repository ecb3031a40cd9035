"""Which ticket a sample goes through."""

from rtl_plugin.routing.contract import Router as Router
from rtl_plugin.routing.contract import RoutingDecision as RoutingDecision
from rtl_plugin.routing.known_group import KnownGroupRouter as KnownGroupRouter
