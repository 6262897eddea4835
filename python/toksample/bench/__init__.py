"""Measures toksample beside the other samplers that are installed: the command ``toksample bench``.

Only the command line, for the command ``bench``, and the benches of the repository import this package. It works where only
numpy is installed, because an engine imports its library when it is measured.

`calls` defines what is measured and checks the answers, `rows` makes the logits, and `engines` has a file for each sampler.
`runner` takes the times, `report` holds and prints the figures, `plot` draws them, and `command` has the options of the
command line.
"""
