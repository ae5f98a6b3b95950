"""Where the time of a training step goes, read from TensorFlow's own profiler."""

from tfmtl.profiling.report import Profile
from tfmtl.profiling.run import profile

__all__ = ["Profile", "profile"]
