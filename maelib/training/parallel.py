"""One run on several processes that share each batch, started by torchrun.

torchrun --nproc-per-node 4 -m maelib train --preset paper
python -m maelib train --preset paper      # one process: every function here then does nothing

A rank is the number of a process, ``size`` their number. All hold the same model and draw
the same global batch. Each runs its slice of it, and the loss is computed on the whole.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from maelib.objectives.base import Outputs

REDUCE_EVERY = 10  # steps; a reduction makes all ranks wait for one another


def rank() -> int:
    """This process's number; 0 is the one that writes, or is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """The number of processes; 1 if it is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The number of this process, and so of its GPU, on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def group() -> Iterator[int]:
    """Context in which the processes that torchrun started form a group; yields the rank."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield rank()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    # What the host decides goes through gloo, so that it does not wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=10))
    try:
        with warnings.catch_warnings():
            # It concerns channels-last weights of ambiguous strides, which cost nothing here.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield rank()
    finally:
        dist.destroy_process_group()


def local_shard(batch: Float[Tensor, "batch *rest"]) -> Float[Tensor, "own *rest"]:
    """This rank's part of a global batch: the rank-th of ``size`` equal runs of rows."""
    return batch.chunk(size())[rank()]


def gather_outputs(outputs: Outputs) -> Outputs:
    """The outputs of the global batch, from those of each rank's images.

    Free bits, L_diverse and L_smooth are of the whole batch, so every rank needs all of them.
    """
    re, kl, mu, logvar = outputs
    own = torch.cat([re[:, None], kl[:, None], mu, logvar], 1)  # RE and KL are never bfloat16
    re, kl, mu, logvar = gather(own).split([1, 1, mu.shape[1], mu.shape[1]], 1)
    return Outputs(re[:, 0], kl[:, 0], mu, logvar)


def gather(own: Float[Tensor, "own *rest"]) -> Float[Tensor, "batch *rest"]:
    """The global batch from each rank's part, in order, with gradients."""
    return own if size() == 1 else _Gather.apply(own)


def parallel(model: nn.Module) -> nn.Module:
    """The model, its gradients averaged over the ranks at each backward pass."""
    wrap = nn.parallel.DistributedDataParallel
    return model if size() == 1 else wrap(model, gradient_as_bucket_view=True)


def all_reduce_max(wish: int, step: int) -> int:
    """The largest wish of any rank at every ``REDUCE_EVERY``-th step; 0 at the steps between."""
    if size() == 1:
        return wish
    if step % REDUCE_EVERY:
        return 0
    most = torch.tensor(wish)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def broadcast_from_rank0(compute: Callable[[], Any]) -> Any:
    """Rank 0's result of ``compute`` on every rank, so that ranks do not differ by round-off."""
    told = [compute() if rank() == 0 else None]
    if size() > 1:
        dist.broadcast_object_list(told, device=torch.device("cpu"))
    return told[0]


class _Gather(torch.autograd.Function):
    """All ranks' parts forwards, the own part's gradient backwards.

    Every rank computes the same loss of the same gathered batch, so its own slice of the gradient
    is right as it stands. DistributedDataParallel then *averages* the parameters' gradients where
    the whole batch's is their sum; the factor ``size`` makes up for it.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return local_shard(gradient) * size()
