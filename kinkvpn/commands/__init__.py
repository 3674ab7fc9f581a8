"""A module for each command: ``add`` gives it its options and its help, ``run`` takes what was asked for and
returns its exit code.

What only one of them needs is imported in its ``run``: ``status`` is for scripts that call it often.
"""
