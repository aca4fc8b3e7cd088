"""What the command line does, as functions: each takes settings, reports on the way and returns a typed result.

A job prints nothing. What it has to say on the way goes to the `Reporter` that a caller may pass; its result has `to_json()`
with the values that the command line writes for `--json`, and the path of what it made where it made a file, so that the
result goes wherever such a path does.
"""
