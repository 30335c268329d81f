"""Twin views: two random views of every image of a batch, by batched tensor operations.

Parameters are drawn for every image on its own, as torchvision's per-image pipeline draws them; the operations
(``numerics/pixels.py``) then run on the whole batch, on CPU or GPU. A recipe (``recipe.py``) says from which ranges
they are drawn.
"""

from dataclasses import replace

import torch
from torch import Tensor

from barlow_edu.numerics import pixels
from barlow_edu.numerics.pixels import Draws, ViewParameters, apply_where, gaussian_blur, solarise
from barlow_edu.recipe import PRESETS, ViewRecipe
from barlow_edu.settings import did_you_mean, for_each_view
from barlow_edu.storage.decoding import Batch


class TwinViews:
    """Two random views of a batch of images.

    ``TwinViews("cifar", size=32)(images)`` maps uint8 (N, C, H, W), C = 1 or 3, to two float32 batches
    (N, C, size, size), normalised, on the same device. ``preset`` is a name in PRESETS or a ViewRecipe, and any field
    of the recipe can be set by keyword: ``TwinViews("cifar", hue=0.5)``. Draws come from ``generator`` (a
    torch.Generator, on any device), or from torch's global one.

    Raises ValueError for an unknown preset or field, an impossible recipe, or images of the wrong shape or type.

    >>> images = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    >>> view_1, view_2 = TwinViews("cifar", size=32)(images, torch.Generator().manual_seed(0))
    >>> view_1.shape
    torch.Size([4, 3, 32, 32])
    """

    def __init__(self, preset: str | ViewRecipe = "garments", size: int = 32, **overrides):
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"No view preset {preset!r}. Choose one of {', '.join(PRESETS)}.")
        known = ViewRecipe.__dataclass_fields__
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise ValueError(
                f"No augmentation called {', '.join(unknown)}.{did_you_mean(unknown, known)} "
                f"Known: {', '.join(known)}."
            )
        recipe = PRESETS[preset] if isinstance(preset, str) else preset
        self.recipe = replace(recipe, **overrides)
        self.size = size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1 pixel, got {size}.")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None):
        """uint8 (N, C, H, W) -> view 1 and view 2, float32 (N, C, size, size), normalised."""
        _check_images(images)
        batch = Batch(images, sizes=None, rows=torch.arange(len(images)))
        return self.of_batch(batch, images.device, generator)

    def of_batch(self, batch: Batch, device, generator=None, shard=slice(None), total=None):
        """Two views on ``device`` of a batch that an ``ImageSet`` or an ``ImageStream`` has loaded.

        shard, total: where these rows lie in a batch of ``total`` that several ranks share. Crops stay within each
        image's own height and width.
        """
        # A copy that nobody waits for must come from pinned memory: any other may be gone when it is read.
        images = batch.images.to(device, non_blocking=batch.images.is_pinned())
        if batch.second is not None:  # torchvision has drawn these views, in the workers
            return images, batch.second.to(device, non_blocking=batch.second.is_pinned())
        # Every rank draws for the whole batch and keeps its own rows: so views do not depend on the number of ranks.
        sizes = torch.tensor([images.shape[2:]]).repeat(total or len(images), 1)
        if batch.sizes is not None:
            sizes[shard] = batch.sizes
        height, width = sizes.unbind(1)
        drawn = [vars(self.draw(len(sizes), height, width, w, generator)) for w in (0, 1)]
        both = ViewParameters(**{k: torch.cat([d[k][shard] for d in drawn]) for k in drawn[0]})
        return self.apply(images, both).chunk(2)

    def draw(
        self, n: int, height: int | Tensor, width: int | Tensor, which: int = 0, generator=None
    ) -> ViewParameters:
        """Draw the parameters of view ``which`` (0 or 1) for n images of height x width pixels.

        height, width: of all images, or (n,) of each.
        """
        r, draws = self.recipe, Draws(n, generator)
        return ViewParameters(
            box=draws.boxes(height, width, for_each_view(r.scale)[which], r.ratio),
            flip=draws.chance(r.flip),
            jitter=draws.chance(r.jitter),
            brightness=draws.factor(r.brightness),
            contrast=draws.factor(r.contrast),
            saturation=draws.factor(r.saturation),
            hue=draws.uniform(-r.hue, r.hue),
            order=(draws.uniform(0, 24)).long().clamp_(max=23),
            grey=draws.chance(r.grey),
            blur=draws.chance(r.blur[which]),
            sigma=draws.uniform(*r.blur_sigma),
            solarise=draws.chance(r.solarise[which]),
        )

    def apply(self, images: Tensor, drawn: ViewParameters) -> Tensor:
        """Normalised views of uint8 (N, C, H, W) images with the given parameters.

        For N images ``drawn`` may hold k N rows. Then every image has k views, (k N, C, size, size) in all, and row i
        shows image i mod N.
        """
        r, drawn = self.recipe, drawn.to(images.device)
        x = pixels.crop(images, drawn.box, drawn.flip, self.size, r.interpolation)
        x = pixels.jitter(x, drawn)
        x = apply_where(drawn.grey, x, lambda s, rows: pixels.grey(s).expand_as(s))
        if max(r.blur) > 0:
            x = apply_where(drawn.blur, x, lambda s, rows: gaussian_blur(s, drawn.sigma[rows]))
        if max(r.solarise) > 0:
            x = apply_where(drawn.solarise, x, lambda s, rows: solarise(s, r.solarise_threshold))
        return self._scale(x)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32, normalised like the views, with no augmentation."""
        _check_images(images)
        return self._scale(images.float().div_(255))

    def denormalize(self, view: Tensor) -> Tensor:
        """A normalised view (N, C, H, W) -> values in [0, 1], to look at."""
        mean, std = self._statistics(view)
        return (view * std + mean).clamp_(0, 1)

    def _scale(self, x: Tensor) -> Tensor:
        mean, std = self._statistics(x)
        return x.sub_(mean).div_(std)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.tensor([self.recipe.mean, self.recipe.std])
        if x.shape[1] == 1:
            values = values.mean(1, keepdim=True)
        mean, std = values.to(x.device, non_blocking=True)
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        shape = tuple(images.shape)
        raise ValueError(f"Images must have shape (N, C, H, W) with C = 1 or 3, got {shape}.")
    if images.dtype != torch.uint8:
        raise ValueError(
            f"Images must be uint8 in [0, 255], got {images.dtype}. "
            "For floats in [0, 1]: (images * 255).round().to(torch.uint8)."
        )
