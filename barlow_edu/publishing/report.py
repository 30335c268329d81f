"""A run for others: a report, one HTML page that needs nothing else; weights for other libraries, a model card."""

import html as escapes
from pathlib import Path

import torch

from barlow_edu.evaluation import load_sets
from barlow_edu.evaluation.features import extract_features
from barlow_edu.evaluation.probes import nearest
from barlow_edu.evaluation.spectra import covariance_spectrum
from barlow_edu.publishing import html
from barlow_edu.publishing.site import gallery
from barlow_edu.runs import Run, load_run
from barlow_edu.scale.official import official_layout
from barlow_edu.storage.files import write_text
from barlow_edu.teaching.figures import plots

IMAGES, QUERIES, NEIGHBOURS = 2000, 6, 6


def write_report(run: Run | str, out: Path | None = None, images: bool = True) -> Path:
    """One page of a run: curves, the film of C, evaluation, spectra, neighbours, where it ran, configuration.

    out: default, report_NAME.html. images: also what needs the run's test images and weights; where they cannot be
    had, the page says why. Whatever comes from files is escaped. Raises FileNotFoundError and ValueError as ``Run``.
    """
    run = run if isinstance(run, Run) else load_run(run)
    name = run.path.resolve().name
    out = out or Path(f"report_{name}.html")
    line, parts = gallery.page_of(run.path)
    at = parts.index("## Where it ran")
    parts[at:at] = _seen(run) if images else []
    body = "\n".join(map(html.page_part, [line, *parts]))
    write_text(out, html.filled("report.html", title=escapes.escape(name), body=body))
    return out


def _seen(run: Run) -> list[str]:
    """What the encoder makes of test images: spectra of its features, and whom it takes for neighbours."""
    try:
        model, test = run.load_model(), load_sets(run)[1]
    except (OSError, ValueError, RuntimeError) as error:
        return ["## Neighbours", html.text(f"The images or weights could not be read: {error}")]
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:IMAGES]
    test, normalize = test.subset(rows), run.views().normalize
    encoders = {"trained": model.encoder, "untrained": run.untrained().encoder.eval()}
    h = {name: extract_features(net, test.images, normalize) for name, net in encoders.items()}
    spectra = {name: covariance_spectrum(features) for name, features in h.items()}
    alt = "Eigenvalues of the covariance of the features, largest first, trained and untrained."
    parts = ["## Spectrum of the features"]
    parts += [gallery.picture(plots.spectrum(spectra, ylabel="eigenvalue"), alt)]
    queries, bank = h["trained"].split([QUERIES, len(test) - QUERIES])
    close = nearest(bank, queries, NEIGHBOURS)[1] + QUERIES
    names = [test.classes[i] for i in test.labels]
    named = (names[:QUERIES], [[names[i] for i in row] for row in close])
    alt = f"{QUERIES} test images, and beside each the nearest of {len(bank)} others."
    fig = plots.neighbours(test.images[:QUERIES], test.images[close], *named)
    return [*parts, "## Neighbours", gallery.picture(fig, alt)]


def export(run: Run | str) -> list[Path]:
    """Add to a run's folder what others read, so that a model hub can take it; returns the files.

    encoder.pth: the encoder as a state dict, with torchvision's names where it is one of its networks.
    encoder_projector.pth: both in the layout of the authors' checkpoint. README.md: a model card. Raises
    FileNotFoundError if the run has no weights.
    """
    run = run if isinstance(run, Run) else load_run(run)
    model, recipe = run.load_model(), run.views().recipe
    states = {"encoder.pth": model.encoder.state_dict()}
    if (run.path / "projector.safetensors").exists():
        states["encoder_projector.pth"] = {"model": official_layout(model)}
    for name, state in states.items():
        torch.save(state, run.path / name)
    line, parts = gallery.page_of(run.path)
    evaluated = parts.index("## Where it ran") - 2 * bool(run.evaluation)
    values = {"mean": recipe.mean, "std": recipe.std, "size": run.config["image_size"]}
    values |= {"title": html.text(run.path.resolve().name), "line": line}
    card = html.filled("model_card.md", **values, body="\n\n".join(parts[evaluated:]))
    write_text(run.path / "README.md", card)
    return [run.path / name for name in (*states, "README.md")]
