"""Barlow Twins in a training loop of one's own, on as many processes as torchrun starts.

    python examples/plain_loop.py
    torchrun --nproc-per-node 2 examples/plain_loop.py

Two lines make several processes train as one: batch norm is synchronised, and DistributedDataParallel averages the
gradients. The loss sees the process group by itself. On GPUs: ``device="cuda"`` and ``process_group("auto")``.
"""

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import barlow_edu as be
from barlow_edu.numerics.distributed import process_group, rank, world_size


def train(model, images, views, batch_size=128, epochs=1, lr=0.05, log=print, device="cpu"):
    """Train ``model`` on uint8 images (N, 3, H, W); ``batch_size`` is that of all processes together."""
    be.synchronize_batch_norm(model.to(device), device)
    parallel = DistributedDataParallel(model) if world_size() > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    sampler = DistributedSampler(images, world_size(), rank())
    # The shards of a batch must be equal: the last, partial one is dropped.
    loader = DataLoader(images, batch_size // world_size(), sampler=sampler, drop_last=True)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # another order
        for batch in loader:
            loss, _ = parallel(*views(batch.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log(loss.item())


def main():
    """A few steps on photographs of garments."""
    torch.manual_seed(0)
    model = be.BarlowTwinsModel(encoder="small_resnet", stem="cifar", proj_dim=128)
    images = be.load_images("garments", limit=512).images
    with process_group("cpu"):
        torch.manual_seed(1 + rank())  # every process draws views of its own
        log = print if rank() == 0 else lambda loss: None
        train(model, images, be.TwinViews("garments"), log=log)


if __name__ == "__main__":
    main()
