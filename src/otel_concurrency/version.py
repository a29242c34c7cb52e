"""The version of the distribution; read by the build and by the façade."""

__version__ = "0.2.0"
