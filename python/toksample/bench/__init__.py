"""``toksample bench``: toksample beside whatever else is installed, on the same rows in the same run.

Nothing outside of this package imports it but the command line, when the command is ``bench``, and the benches of the
repository. It needs numpy alone: an engine imports its library when it is measured.

`calls` says what is asked, and what a right answer is; `rows` makes what it is asked about; `engines` has one file for each
way to answer. `runner` takes the times, `report` shows them, `plot` draws them, and `command` is the command line.
"""
