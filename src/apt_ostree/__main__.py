"""`python3 -m apt_ostree`: the command line."""

from apt_ostree.cli.main import main

main()
