"""Barlow Twins with FSDP2: every process holds a shard of each parameter, its gradient and the optimizer's state.

    torchrun --nproc-per-node 2 examples/with_fsdp2.py

The loop is that of ``plain_loop.py``. What differs: ``fully_shard`` in place of DistributedDataParallel, and an
optimizer without fused kernels, for which torch has no rule that says how they act on shards.
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

import barlow_edu as be
from barlow_edu.numerics.distributed import process_group


def train(model, images, views, batch_size=128, epochs=1, lr=0.05, log=print, device="cpu"):
    """Train ``model`` on uint8 images (N, 3, H, W); ``batch_size`` is that of all processes together."""
    be.synchronize_batch_norm(model.to(device), device)
    # Shards are cut from each process's own weights, and nobody compares those: so they get the first one's.
    for value in model.state_dict().values():
        dist.broadcast(value, 0)
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for part in (model.encoder, model.projector, model):  # what is gathered at one time
        fully_shard(part, mesh=mesh)
    # Not fused: aten._fused_sgd_ has no sharding strategy.
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, fused=False, foreach=True)
    sampler = DistributedSampler(images)
    size = batch_size // dist.get_world_size()
    loader = DataLoader(images, size, sampler=sampler, drop_last=True)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss, _ = model(*views(batch.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log(loss.item())


def main():
    """A few steps on photographs of garments."""
    model = be.BarlowTwinsModel(encoder="small_resnet", stem="cifar", proj_dim=128)
    images = be.load_images("garments", limit=512).images
    with process_group("cpu"):
        torch.manual_seed(1 + dist.get_rank())  # every process draws views of its own
        log = print if dist.get_rank() == 0 else lambda loss: None
        train(model, images, be.TwinViews("garments"), log=log)


if __name__ == "__main__":
    main()
