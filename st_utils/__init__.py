"""The parts that models are assembled from, and what feeds, trains and measures them.

Everywhere an activation has the axes `T B C H W`: time step, sample, channel, row, column.
"""

from st_utils.moved import find_moved_modules
from st_utils.own_modules import require_own_modules

require_own_modules("registry")  # every room imports it
find_moved_modules()
