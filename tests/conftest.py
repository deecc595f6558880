"""What holds for all tests."""

import os

# Tests run side by side, one process a core: more threads in each would only wait for one another. Set before torch is
# imported, and in the environment, so that processes which tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
