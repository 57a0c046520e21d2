"""The one door to BrainCog: its neurons as nodes, its networks as models, and our nodes in its networks."""

from st_utils.braincog.imports import import_braincog
from st_utils.braincog.networks import BrainCogNet
from st_utils.braincog.nodes import BrainCogNode
from st_utils.braincog.our_nodes import braincog_node

__all__ = ["BrainCogNet", "BrainCogNode", "braincog_node", "import_braincog"]
