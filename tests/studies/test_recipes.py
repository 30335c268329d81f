"""The rules of recipes.py against published numbers, and the packaged configurations against the rules."""

import pytest
import torch

from barlow_edu.config import CONFIG_DIR, config_names, load_config
from barlow_edu.loss import barlow_twins_loss
from barlow_edu.studies.ablations import declaration, load_experiment
from barlow_edu.studies.recipes import lambda_for, lr_for, noise_share

SITE = CONFIG_DIR.parent / "publishing" / "site"
RECIPES = (
    "garments_wide",
    "garments_quick",
    "garments_hero",
    "cifar10_cpu",
    "cifar10_resnet18",
    "cifar10_resnet18_official",
    "cifar100_resnet18",
    "folder",
    "imagenet_resnet50",
    "imagenet_resnet50_100ep",
    "imagenet_resnet50_1gpu",
    "imagenet_vit_small",
    "imagenette_resnet18",
    "imagenette_resnet50",
)
# Configurations that keep values of their source instead: each says so in its own file.
OWN_LAMBDA = {
    "cifar10_resnet18_official": 0.0051,
    "imagenet_resnet50_1gpu": 0.005,
    "garments_quick": 0.2,
    "garments_hero": 0.2,
}
OWN_LR = {"imagenet_resnet50_1gpu": 0.6, "imagenet_vit_small": 2e-3}
OWN_LR |= dict.fromkeys(("garments_quick", "garments_hero"), 0.005)


def test_the_paper_keeps_its_own_lambda():
    assert lambda_for(8192, 2048) == 0.005
    assert lr_for(2048, "lars") == pytest.approx(1.6)  # the paper's 0.2 x 2048 / 256


@pytest.mark.parametrize(
    ("lambd", "dim", "batch_size", "share"),
    [(0.005, 8192, 2048, 0.02), (1 / 128, 128, 128, 0.0078), (1 / 128, 1024, 256, 0.031)],
)
def test_noise_share_of_published_settings(lambd, dim, batch_size, share):
    assert noise_share(lambd, dim, batch_size) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(("dim", "batch_size"), [(64, 32), (32, 128)])
def test_noise_share_is_what_unrelated_embeddings_cost(dim, batch_size):
    generator = torch.Generator().manual_seed(0)
    costs = []
    for _ in range(40):
        z_a, z_b = torch.randn(2, batch_size, dim, generator=generator, dtype=torch.float64)
        costs.append(0.3 * barlow_twins_loss(z_a, z_b, 0.3).redundancy / dim)
    assert torch.stack(costs).mean().item() == pytest.approx(
        noise_share(0.3, dim, batch_size), rel=0.02
    )


def test_lambda_follows_width_and_batch():
    assert lambda_for(512, 128) == 0.005
    assert lambda_for(1024, 128) == pytest.approx(lambda_for(512, 128) / 2, rel=0.02)
    assert lambda_for(1024, 256) == pytest.approx(lambda_for(512, 128), rel=0.02)
    assert lambda_for(2048, 256, share=0.04) == pytest.approx(0.005, rel=0.02)
    assert lambda_for(16, 4096) == 0.1


def test_learning_rate_follows_the_batch():
    assert lr_for(128, "adamw") == 0.005
    assert lr_for(512, base=0.1) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: lambda_for(1, 128), "dim=1"),
        (lambda: lambda_for(512, 1), "batch_size=1"),
        (lambda: lambda_for(512, 128, 0), "share must be above 0, got 0"),
        (lambda: noise_share(-1, 8, 8), "lambd=-1"),
        (lambda: lr_for(0), "batch_size must be at least 1, got 0"),
        (lambda: lr_for(128, "adam"), "No base rate for 'adam'. Known: adamw, lars, sgd"),
    ],
)
def test_what_does_not_fit_is_named(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_the_record_of_the_rule_is_what_was_declared_and_what_the_site_prints():
    """One row of the table for each width and batch: the rule's λ, and kNN at five multiples of it."""
    declared, rows = declaration("lambda_rule")["experiments"], []
    for name, experiment in declared.items():
        study = load_experiment(f"lambda_rule/{name}")
        assert study.variants == list(experiment["variants"])
        dim, batch = (study.config_of("rule x 1", 0)[k] for k in ("proj_dim", "batch_size"))
        rule = 0.02 * (batch - 1) / (dim - 1)
        for variant in study.variants:
            lambd = study.config_of(variant, 0)["lambd"]
            assert lambd == pytest.approx(rule * float(variant.split()[-1]), rel=0.02)
            assert study.column(variant, "seed").tolist() == [0, 1, 2]
        means = [100 * study.score(variant).mean for variant in study.variants]
        cells = (dim, batch, f"{rule:.2g}", *(f"{x:.1f}" for x in means))
        rows.append(f"| {' | '.join(map(str, cells))} |")
        assert max(means) - means[2] < 2.5  # points
    assert "\n".join(rows) in (SITE / "using.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [n for n in config_names() if "sweep" not in n]
)  # λ is swept there
def test_every_configuration_follows_the_rules_or_says_why_not(name):
    config = load_config(name)
    lambd = OWN_LAMBDA.get(name, lambda_for(config["proj_dim"], config["batch_size"]))
    assert config["lambd"] == pytest.approx(lambd, rel=0.02)
    lr = OWN_LR.get(name, lr_for(config["batch_size"], config["optimizer"]))
    assert config["lr"] == pytest.approx(lr, rel=0.02)
    if name in OWN_LAMBDA or name in OWN_LR:
        assert (
            "the rule of barlow_edu/studies/recipes.py" in (CONFIG_DIR / f"{name}.yaml").read_text()
        )


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_without_a_recorded_run_says_so(name):
    text = (CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    recorded = (CONFIG_DIR.parent.parent / "data" / "runs" / name).is_dir()
    assert recorded != ("NOT RUN BY US" in text)
