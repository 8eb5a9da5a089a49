"""The study: arms that differ as they say, shared seeds, results that outlive a kill, intervals that are right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import xnornet.study as under_test
from xnornet.data import Images, Prepared
from xnornet.params import RESIDUAL, Arm, Params, ParamsError, Runtime, Study, compared_with, settings_of
from xnornet.study import shrink, study, summary

RUNTIME = Runtime(device="cpu", threads=1, seed=0)
FIRST = Arm(
    gradient="corrected",
    input_scaling=False,
    output_norm=False,
    residual_relu=False,
    normed_shortcut=False,
    centre=True,
    clamp=True,
)
PLAN = Study(seeds=2, arms={"corrected": FIRST, "paper": Arm(gradient="paper"), "loose": Arm(clamp=False)})


def short(params: Params, arms: list[str]) -> Any:
    length = {"epochs": 1, "warmup_epochs": 0.0, "arms": arms}
    return params.digits.model_copy(update={"study": params.digits.study.model_copy(update=length)})


def test_a_row_a_training_with_shared_seeds(digits: Prepared, params: Params, tmp_path: Path) -> None:
    rows = study(digits, short(params, ["corrected", "paper"]), PLAN, RUNTIME, finished=tmp_path, data_md5="", title="")
    assert rows[["arm", "seed"]].to_numpy().tolist() == [["corrected", 0], ["corrected", 1], ["paper", 0], ["paper", 1]]
    assert dict(zip(rows.arm, rows.against, strict=True)) == {"corrected": "corrected", "paper": "corrected"}
    assert rows.train_loss.nunique() == 4, "two trainings are the same"
    assert rows.signs_changed.between(0, 60, inclusive="neither").all()
    assert (rows.epochs == 1).all() and (rows.image_size == 28).all()


def test_a_killed_study_goes_on_with_the_next_training(
    digits: Prepared, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, fit = short(params, ["corrected", "paper"]), under_test.fit
    whole = study(digits, settings, PLAN, RUNTIME, finished=tmp_path / "whole", data_md5="", title="")
    calls: list[str] = []

    def mortal(*arguments: Any, **options: Any) -> Any:
        calls.append(options["title"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(under_test, "fit", mortal)
    with pytest.raises(KeyboardInterrupt):
        study(digits, settings, PLAN, RUNTIME, finished=tmp_path / "killed", data_md5="", title="")
    again = study(digits, settings, PLAN, RUNTIME, finished=tmp_path / "killed", data_md5="", title="")
    assert len(calls) == 3 + 2, "what was finished is not trained again"
    pd.testing.assert_frame_equal(again, whole)


def test_with_other_data_all_is_trained_again(
    digits: Prepared, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, titles = under_test.fit, []

    def counted(*arguments: Any, **options: Any) -> Any:
        titles.append(options["title"])
        return fit(*arguments, **options)

    monkeypatch.setattr(under_test, "fit", counted)
    known: dict[str, Any] = {"finished": tmp_path, "title": ""}
    settings = short(params, ["corrected"])
    one = PLAN.model_copy(update={"seeds": 1})
    for data_md5 in ("one", "another", "one"):
        study(digits, settings, one, RUNTIME, data_md5=data_md5, **known)
    assert len(titles) == 2


def test_an_arm_changes_what_it_says_and_nothing_else(params: Params) -> None:
    plain, loose = (settings_of(params.cifar10, PLAN, PLAN.arms[name]) for name in ("corrected", "loose"))
    assert plain.xnor.clamp and not loose.xnor.clamp
    assert plain.xnor.model_copy(update={"clamp": False}) == loose.xnor
    assert plain.model.width == params.cifar10.study.width  # type: ignore[union-attr]
    assert plain.xnor.epochs == params.cifar10.study.epochs


def test_a_study_may_keep_more_images_for_validation(params: Params) -> None:
    for own, split in ((None, params.cifar10.split.validation), (77, 77)):
        short = params.cifar10.study.model_copy(update={"validation": own})
        settings = params.cifar10.model_copy(update={"study": short})
        assert settings_of(settings, PLAN, FIRST).split.validation == split


@pytest.mark.parametrize("name", RESIDUAL)
def test_an_arm_that_its_network_cannot_have_is_refused(name: str, params: Params) -> None:
    arm = Arm(output_norm=True).model_copy(update={name: True})
    assert getattr(settings_of(params.cifar10, PLAN, arm).xnor, name)
    with pytest.raises(ParamsError, match=rf"^{name} is true, but lenet5 has no residual stream"):
        settings_of(params.mnist, PLAN, arm)


def test_the_base_may_be_compared_with_an_arm_too(params: Params) -> None:
    arms = {"paper": Arm(gradient="paper"), "corrected": FIRST.model_copy(update={"against": "paper"})}
    plan = Study(seeds=2, arms=arms)
    assert [settings_of(params.mnist, plan, arm).xnor.gradient for arm in arms.values()] == ["paper", "corrected"]


def test_an_arm_is_compared_with_another_one(params: Params) -> None:
    arms = {"corrected": FIRST, "fast": Arm(learning_rate=1e-2), "fast paper": Arm(against="fast", gradient="paper")}
    assert compared_with(arms) == {"corrected": "corrected", "fast": "corrected", "fast paper": "fast"}
    with pytest.raises(ParamsError, match="'fast paper' is compared with 'fast': add that arm"):
        compared_with({name: arms[name] for name in ("corrected", "fast paper")})
    with pytest.raises(ValueError, match="fast paper is compared with fast, which is no arm before it"):
        Study(seeds=2, arms={name: arms[name] for name in ("corrected", "fast paper", "fast")})
    assert settings_of(params.mnist, PLAN, arms["fast paper"]).xnor.gradient == "paper"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["corrected", "papyrus"], "unknown arm 'papyrus': choose from 'corrected', 'paper'"),
        (["corrected", "same"], "'same' is the same training as 'corrected'"),
        (["paper", "clamped paper"], "'clamped paper' is the same training as 'paper'"),
    ],
)
def test_arms_that_make_no_sense(
    arms: list[str], message: str, digits: Prepared, params: Params, tmp_path: Path
) -> None:
    also = Arm(gradient="paper", clamp=True)  # as the base has it
    plan = PLAN.model_copy(update={"arms": PLAN.arms | {"same": FIRST, "clamped paper": also}})
    with pytest.raises(ParamsError, match=message):
        study(digits, short(params, arms), plan, RUNTIME, finished=tmp_path, data_md5="", title="")


def test_images_are_halved_by_averaging(shapes: Prepared) -> None:
    half = shrink(shapes, 16)
    assert half.train.images.shape == (len(shapes.train), 16, 16, 3) and half.classes == shapes.classes
    assert abs(half.train.images.mean() - shapes.train.images.mean()) < 1
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    images = Images(noise, np.arange(50, dtype=np.uint8) % 10)
    assert shrink(replace(shapes, train=images), 16).train.images.std() < 0.5 * noise.std()
    assert shrink(shapes, 32).train.images.tobytes() == shapes.train.images.tobytes()


def test_intervals_are_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(90, 3, 6)
    other = first - 0.5 + rng.normal(0, 0.1, 6)
    third = other + 1 + rng.normal(0, 0.1, 6)
    rows = pd.DataFrame(
        {
            "arm": ["a"] * 6 + ["b"] * 6 + ["c"] * 6,
            "against": ["a"] * 6 + ["a"] * 6 + ["b"] * 6,
            "seed": [*range(6)] * 3,
            "validation_accuracy": [*first, *other, *third],
            "signs_changed": [*range(6)] * 3,
        }
    )
    found = summary(rows)
    for arm, difference in (("b", other - first), ("c", third - other)):
        assert found[arm]["difference"] == pytest.approx(difference.mean(), abs=1e-4)
        half = 2.5706 * difference.std(ddof=1) / 6**0.5  # Student's t, 5 degrees of freedom, 97.5 %
        assert found[arm]["low"] == pytest.approx(difference.mean() - half, abs=1e-4)
        assert found[arm]["high"] == pytest.approx(difference.mean() + half, abs=1e-4)
    assert found["b"]["high"] < 0, "the pairs see what the spread over seeds hides"
    assert found["a"] == {
        "mean": round(first.mean(), 4),
        "std": round(first.std(ddof=1), 4),
        "runs": 6,
        "signs_changed": 2.5,
    }
