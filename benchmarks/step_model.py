"""How long a data-parallel training step takes on many GPUs, from a few assumptions."""

from dataclasses import dataclass

BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, kw_only=True)
class StepModel:
    r"""A step is the computation of one GPU's samples, then a ring all-reduce of the gradient.

    .. math:: t(N) = t_c + 2 \frac{N - 1}{N} \frac{4 P}{b} + 2 (N - 1)\, l

    Nothing overlaps, which is the worst case: DDP starts to add up while it still computes.

    Args:
        num_weights: P, weights of the model.
        compute_seconds: t_c, computation of one GPU's share of a step [s].
        bandwidth_bytes_per_second: b, of the slowest link of the ring.
        latency_seconds: l, of one message between neighbours [s].
    """

    num_weights: int
    compute_seconds: float = 0.020
    bandwidth_bytes_per_second: float = 10e9
    latency_seconds: float = 10e-6

    def bytes_sent(self, num_workers: int) -> float:
        """Return what each worker sends in a step [bytes]."""
        return 2 * (num_workers - 1) / num_workers * self.num_weights * BYTES_PER_WEIGHT

    def all_reduce_seconds(self, num_workers: int) -> float:
        """Return the time in which the gradient is added up [s]."""
        return (
            self.bytes_sent(num_workers) / self.bandwidth_bytes_per_second
            + 2 * (num_workers - 1) * self.latency_seconds
        )

    def weak_efficiency(self, num_workers: int) -> float:
        """Return the throughput per worker at a constant batch per worker, relative to one."""
        return self.compute_seconds / (self.compute_seconds + self.all_reduce_seconds(num_workers))

    def strong_speedup(self, num_workers: int) -> float:
        """Return how much faster a step of a constant global batch is than on one worker."""
        step = self.compute_seconds / num_workers + self.all_reduce_seconds(num_workers)
        return self.compute_seconds / step
