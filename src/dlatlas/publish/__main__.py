"""``python -m dlatlas.publish``: what the rules of the Snakefile call."""

from dlatlas.publish.cli import main

main()
