"""libapt through python-apt: resolving, downloading, verifying, and driving dpkg in the sandbox.

The only package that imports apt. libapt's configuration is global to the process, so a worker sets it once,
by `config.use_build_root`.
"""
