"""Networks: each maps a rainy image to a Restoration; one family per file."""

from sstl.networks import context as context
from sstl.networks import ddn as ddn
from sstl.networks import idcgan as idcgan
from sstl.networks import joint as joint
from sstl.networks import jorder as jorder
from sstl.networks import jorder_e as jorder_e
from sstl.networks import mspfn as mspfn
from sstl.networks import prenet as prenet
from sstl.networks import routed as routed
from sstl.networks.base import NETWORKS, Network, create_network, list_networks
from sstl.networks.weights import Weights, list_weights, load_weights, save_weights

__all__ = [
    "NETWORKS",
    "Network",
    "Weights",
    "create_network",
    "list_networks",
    "list_weights",
    "load_weights",
    "save_weights",
]
