"""Every module of this folder registers its parts when it is imported: a new part is a new file."""

from registry import import_all

import_all(__name__, __path__)
