"""The `cls-data` command.

`main` imports only the module of the command that runs. Each of these modules has the functions
`add_arguments`, for its parser, and `run`, which returns the exit code.
"""
