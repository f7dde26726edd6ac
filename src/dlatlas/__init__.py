"""The library behind The Deep Learning Atlas."""

__version__ = "0.1.0"
