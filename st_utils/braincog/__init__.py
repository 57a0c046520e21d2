"""BrainCog (github.com/BrainCog-X/Brain-Cog): its neurons as nodes, its networks as models, our nodes in its networks.

    from registry import create

    create("node", "braincog.LIFNode(tau=3.0)", step=4).spec  # 'braincog.LIFNode(step=4, tau=3.0)'

`imports.py` imports it and lists its classes, `nodes.py` and `networks.py` register these under `braincog.*`,
`our_nodes.py` goes the other way: `SEWResNet(..., node_type=braincog_node("plif"))`.
"""

from st_utils.braincog.imports import import_braincog
from st_utils.braincog.networks import BrainCogNet
from st_utils.braincog.nodes import BrainCogNode
from st_utils.braincog.our_nodes import braincog_node

__all__ = ["BrainCogNet", "BrainCogNode", "braincog_node", "import_braincog"]
