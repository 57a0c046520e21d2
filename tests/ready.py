"""What the process is that tests/processes.py forks from: importing this makes it ready."""

from tests.processes import be_ready

be_ready()
