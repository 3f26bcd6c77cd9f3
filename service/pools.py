"""Worker threads, on which everything that blocks is called."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Pools:
    """Worker threads: a class of verbs never waits for another's."""

    reads: ThreadPoolExecutor
    jobs: ThreadPoolExecutor
    urgent: ThreadPoolExecutor

    @classmethod
    def make(cls) -> "Pools":
        """Pools of the usual sizes. Waiting for a guest occupies a thread of `jobs`."""
        return cls(
            ThreadPoolExecutor(8, "reads"),
            ThreadPoolExecutor(32, "jobs"),
            ThreadPoolExecutor(8, "urgent"),
        )

    def shutdown(self) -> None:
        """Takes no more work; threads that still hang in a call are left behind."""
        for pool in (self.reads, self.jobs, self.urgent):
            pool.shutdown(wait=False, cancel_futures=True)
