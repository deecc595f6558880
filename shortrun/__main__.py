import sys

from shortrun.cli import main

sys.exit(main())
