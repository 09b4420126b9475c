"""The version, read by the build, by snapshots and by ``lis2 --version``."""

__version__ = "0.1.0"
