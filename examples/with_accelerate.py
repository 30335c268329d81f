"""Barlow Twins with Hugging Face accelerate.

    pip install accelerate
    torchrun --nproc-per-node 2 examples/with_accelerate.py

On CPUs ``accelerate launch`` starts several processes with MPI only; torchrun needs nothing more.
``prepare`` wraps the model in DistributedDataParallel and shares out the batches; batch norm has to be synchronised
before. ``split_batches`` makes ``batch_size`` that of all processes together.
"""

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

import barlow_edu as be


def train(model, images, views, batch_size=128, epochs=1, lr=0.05, log=print, cpu=True):
    """Train ``model`` on uint8 images (N, 3, H, W); ``batch_size`` is that of all processes together."""
    accelerator = Accelerator(
        cpu=cpu, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    be.synchronize_batch_norm(model, accelerator.device)
    loader = DataLoader(images, batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    parallel, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(epochs):
        for batch in loader:
            loss, _ = parallel(*views(batch))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            if accelerator.is_main_process:
                log(loss.item())


def main():
    """A few steps on photographs of garments."""
    # Every process draws views of its own; the weights are those of the first.
    torch.manual_seed(PartialState(cpu=True).process_index)
    model = be.BarlowTwinsModel(encoder="small_resnet", stem="cifar", proj_dim=128)
    images = be.load_images("garments", limit=512).images
    train(model, images, be.TwinViews("garments"))


if __name__ == "__main__":
    main()
