"""The card of the packed networks: what each was trained on and how, what it reaches, and what it is not for."""

from typing import Any

from xnornet.report.prose import digits, listed
from xnornet.report.read import Results

ADVICE = "It knows these classes alone and gives one of them to any image; its logits are no calibrated probabilities."


def cards(results: Results) -> list[dict[str, Any]]:
    """What the template says of each network."""
    return [_card(results, dataset) for dataset in results.datasets]


def _card(results: Results, dataset: str) -> dict[str, Any]:
    data, memory, packed = results.data(dataset), results.memory(dataset), results.packed(dataset)
    settings = results.settings(dataset, "xnor")
    alone = results.timed(dataset).packed
    shape = data["shape"].replace("x", ", ")
    limits = [ADVICE]
    if encoding := results.lossy(dataset):
        limits.insert(0, f"Trained and tested on images that went through {encoding}, not on the original archive.")
    if dead := results.dead_stages(dataset):
        stages = f"stage{'s' * (len(dead) > 1)} {listed(list(dead))}"
        limits.insert(
            0,
            f"The binary convolutions of its {stages} contribute nothing: with what they add replaced by its "
            "mean, it answers as well.",
        )
    return {
        "title": results.title(dataset),
        "file": f"{dataset}.safetensors",
        "example": f"(1, {shape})",
        "shape": shape,
        "kilobytes": f"{memory['packed_bytes'] / 1000:,.1f}",
        "float_kilobytes": f"{memory['float_bytes'] / 1000:,.1f}",
        "classes": data["classes"],
        "source": settings["images"]["source"],
        "train_images": f"{data['train_images']:,}",
        "validation": f"{settings['split']['validation']:,}",
        "test_images": f"{data['test_images']:,}",
        "test_accuracy": f"{packed['test_accuracy']:.2f}",
        "train_accuracy": f"{packed['train_accuracy']:.2f}",
        "float_accuracy": f"{results.trained(dataset, 'float')['test_accuracy']:.2f}",
        "same_answers": f"{packed['same_answers']:.2f}",
        "recipe": _recipe(settings),
        "batch": alone.batch,
        "milliseconds": digits(alone.milliseconds_per_image, 3),
        "cpu": results.processor(),
        "limits": " ".join(limits),
    }


def _recipe(settings: dict[str, Any]) -> str:
    how, training = settings["optimization"], settings["training"]
    model = ", ".join(f"{key} {value}" for key, value in settings["model"].items() if key != "name" and value)
    warmup = f"{how['warmup_epochs']:g} epoch{'s' * (how['warmup_epochs'] != 1)}"
    augmentation = training["augment"] | {key: how[key] for key in ("cutout", "cutmix")}
    changes = [f"{name} {value}" for name, value in augmentation.items() if value]
    idle = how["gradient"] == "corrected" and bool(how.get("output_norm"))  # docs/gradient.md
    parts = [
        *([model] if model else []),
        f"{how['epochs']} epochs of {how['optimizer']}",
        f"learning rate {how['learning_rate']:g} ({how['schedule']}, {warmup} of warm-up)",
        *(f"again after {r['after']} epochs, up to {r['learning_rate']:g}" for r in how.get("restarts", [])),
        f"weight decay {how['weight_decay']:g}",
        *([f"label smoothing {how['label_smoothing']:g}"] if how["label_smoothing"] else []),
        f"batch size {how['batch_size']}",
        f"gradient {how['gradient']}" + " (under `output_norm`, that of a constant α)" * idle,
        *(["K (`input_scaling`)"] if how.get("input_scaling") else []),
        *(["BatchNorm behind binary layers (`output_norm`)"] if how.get("output_norm") else []),
        *(["ReLU on what they add to the residual stream (`residual_relu`)"] if how.get("residual_relu") else []),
        *(["1x1 shortcuts of the normalised input (`normed_shortcut`)"] if how.get("normed_shortcut") else []),
        *(["augmentation " + ", ".join(changes)] if changes else []),
    ]
    return "; ".join(parts)
