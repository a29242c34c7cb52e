"""In the place of the library of this name: a generator of messages, under two names."""

from .main import awatch as awatch
from .run import arun_process as arun_process
