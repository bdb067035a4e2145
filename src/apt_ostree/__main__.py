"""`python3 -m apt_ostree`: the command line."""

import sys

from apt_ostree.cli.main import main

sys.exit(main())
