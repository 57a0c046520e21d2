"""The installed command `spiking-zoo`, also `python -m spiking_zoo`: `main.py`, from any folder."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        from st_utils.own_modules import require_own_modules

        require_own_modules("zoo", "main")
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from main import main as run  # imports torch, whose threads main.py sets up first

    return run()


if __name__ == "__main__":
    sys.exit(main())
