"""`python -m folkmoot.node.cli`: the same command line, for a process that starts others with its own interpreter."""

from folkmoot.node.cli import main

main()
