from typing import Final

TABLE: Final[tuple[str, ...]] = ("concurrent.futures.thread._worker",)
