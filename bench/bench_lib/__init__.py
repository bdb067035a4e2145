"""Measures the product against named peers in the same run. Standard library only.

The same modules run on the host (machine, compose, report) and, by `python3 -m bench_lib TOPIC`, inside a
machine of the test bed (everything else).
"""
