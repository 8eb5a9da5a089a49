"""The report's prose: a claim stands only while the metrics support it."""

import json
import re
from collections.abc import Callable

import pandas as pd

from xnornet.bench.machine import fingerprint
from xnornet.engine.counter import GROUPS, LOOKUP
from xnornet.engine.panels import STEP
from xnornet.report import Results
from xnornet.report.build import render, render_card


def prose(results: Results) -> str:
    """The report without its line breaks."""
    return " ".join(render(results).split())


def test_a_claim_goes_when_the_metrics_stop_supporting_it(results: Results, change: Callable[..., None]) -> None:
    before = prose(results)
    assert "costs 0.75 points of test accuracy (99.25 to 98.50 %, means over the seeds)" in before
    assert "Training is not faster" in before
    change("metrics/seeds/mnist-xnor.json", "mnist", "xnor", "seeds", mean=99.6, runs=1)
    change("metrics/pace/mnist.json", "mnist", "pace", "xnor", seconds_per_epoch=5.0)
    after = prose(results)
    assert "binarization costs nothing: 99.60 %, float 99.25 %." in after
    assert "points of test accuracy" not in after and "Training is not faster" not in after


def test_a_network_that_fits_its_training_images_is_not_said_to_lack_capacity(
    results: Results, change: Callable[..., None]
) -> None:
    fits = "the packed network gets 99.50 % right, of the test images 99.10 %: what it lacks is not the capacity"
    assert fits in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", test_accuracy=99.5)  # it lacks nothing
    assert "gets 99.50 % right, of the test images 99.50 %." in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", test_accuracy=99.1, train_accuracy=91.0)
    text = prose(results)
    assert "gets 91.00 % right, of the test images 99.10 %." in text and "capacity" not in text


def test_the_cost_is_uncertain_by_the_images_too(results: Results, change: Callable[..., None]) -> None:
    answers = pd.read_csv(results.root / "plots/predictions/mnist-float.csv")
    for variant, wrong in (
        ("float", 4),
        ("xnor", 12),
    ):  # of 200 images; those of the float network are among the others
        answers.assign(predicted=[1 - a if i < wrong else a for i, a in enumerate(answers.actual)]).to_csv(
            results.root / f"plots/predictions/mnist-{variant}.csv", index=False
        )
    # Of 200 differences 8 are 1: mean 0.04, variance 200 / 199 x 0.04 x 0.96, so 1.972 x sqrt(0.0386 / 200) = 2.74 %.
    images = "That the 200 test images are some of many makes it uncertain by ±2.74 points"
    only = ": of the networks of the first seed, only the float one gets 8 of them right, only the XNOR one 0."
    assert f"{images}, which an interval over seeds leaves out{only}" in prose(results)
    for variant in ("float", "xnor"):
        path = results.root / f"plots/seeds/mnist-{variant}.csv"
        pd.read_csv(path)[:1].to_csv(path, index=False)
    assert f"{images}{only}" in prose(results) and "same pairs of networks" not in prose(results)


def test_the_cost_on_validation_images_stands_beside_it(results: Results) -> None:
    path = results.root / "plots/seeds/mnist-xnor.csv"
    rows = pd.read_csv(path)
    rows["validation_accuracy"] = [99.1, 99.2, 99.3, 99.4]  # float: 99.2, 99.3, 99.2, 99.3
    rows.to_csv(path, index=False)
    # Differences 0.1, 0.1, -0.1, -0.1: mean 0, deviation 0.1155, times 3.182 / 2.
    assert "float less XNOR is 0.00 points in the same pairs of networks (95 % interval -0.18 to +0.18)" in prose(
        results
    )


def test_differences_are_corrected_for_their_number(results: Results, change: Callable[..., None]) -> None:
    corrected = "(Benjamini and Hochberg, a false discovery rate of 5 %)"
    path, rows = results.root / "plots/study/mnist.csv", pd.read_csv(results.root / "plots/study/mnist.csv")
    other = rows[rows.arm == "paper"].assign(arm="other", train_loss=0.3)
    values = json.loads((results.root / "metrics/study/mnist.json").read_text())["mnist"]["study"]["paper"]
    change("metrics/study/mnist.json", "mnist", "study", other=values)
    pd.concat([rows, other]).to_csv(path, index=False)
    assert f"for the 2 comparisons {corrected}, all of these differences remain." in prose(results)
    scattered = other.assign(validation_accuracy=[96.0, 97.8, 98.0])
    pd.concat([rows, scattered]).to_csv(path, index=False)
    assert f'{corrected}, of these differences "paper" remains.' in prose(results)
    chance = rows.assign(validation_accuracy=[97.0, 98.0, 99.0, 96.0, 98.1, 98.0])
    pd.concat([chance, scattered]).to_csv(path, index=False)
    assert f"{corrected}, none of these differences remains." in prose(results)
    for arm in ("paper", "other"):
        change("metrics/study/mnist.json", "mnist", "study", arm, low=-1.0, high=1.0)
    assert "Corrected for" not in prose(results)


def test_claims_about_sweeps_are_looked_up(results: Results) -> None:
    path = results.root / "plots/sweeps/image_size.csv"
    assert "As the law has it, the image size hardly matters" in prose(results)
    rows = pd.read_csv(path)
    rows.loc[0, "speedup_torch"] *= 3
    rows.to_csv(path, index=False)
    assert "The law does not know the image size, but the measurement depends on it: 17.0x to 51.0x" in prose(results)


def test_ratios_of_noisy_times_are_marked(results: Results, change: Callable[..., None]) -> None:
    for sentence in (
        "by 30.0x at batch 1 and 10.0x at batch 64, on",
        "at batch 1, ONNX Runtime int8, takes 5.0 times as long.",
        "With 2 threads the packed network is 1.25x as fast, and over the fastest engine in float32, ONNX Runtime "
        "float32, the gain is 12.5x.",
        "takes 1.00 times (MNIST, LeNet-5) as long",
    ):
        assert sentence in prose(results)
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    for contestant, over_torch, nearest in (
        ("packed", " (noisy)", " (noisy)"),
        ("torch float32", " (noisy)", ""),
        ("ONNX Runtime int8", "", " (noisy)"),
    ):
        rows.assign(noisy=rows.contestant == contestant).to_csv(path, index=False)
        assert f"by 30.0x at batch 1{over_torch} and 10.0x at batch 64{over_torch}, on" in prose(results)
        assert f"takes 5.0 times as long{nearest}." in prose(results)
    change("metrics/pace/mnist.json", "mnist", "pace", "float", noisy=True)
    assert "takes 1.00 times (MNIST, LeNet-5, noisy) as long" in prose(results)


def test_what_few_channels_cost_is_a_reason_only_where_they_cost_something(results: Results) -> None:
    path = results.root / "plots/sweeps/input_channels.csv"
    assert "This is one reason why the first layer" in prose(results)
    pd.read_csv(path).assign(speedup_torch=10.0).to_csv(path, index=False)
    assert "changes only from 10.0x to 10.0x" in prose(results)
    assert "This is one reason" not in prose(results) and "The first layer stays float since its input is" in prose(
        results
    )


def test_what_is_said_of_the_engine_is_said_of_this_cpus(results: Results, change: Callable[..., None]) -> None:
    looked_up = "counts that are still in registers or in L1", "output channels as multiples of 128"
    counted = "counts that are still in registers.", "channels as multiples of 64"
    assert all(words in prose(results) for words in looked_up)
    change("metrics/machine.json", "cpu", vector_flags=["avx2", "avx512_vpopcntdq"])
    assert all(words in prose(results) for words in counted)
    assert not any(words in prose(results) for words in looked_up)
    as_the_loop, in_groups = "counts as the engine does on this CPU", "the engine counts them in groups"
    assert as_the_loop in prose(results) and in_groups not in prose(results)
    change("metrics/machine.json", "cpu", vendor="AuthenticAMD")
    assert in_groups in prose(results) and as_the_loop not in prose(results)
    assert "input channels as multiples of 256" in prose(results) and counted[1] not in prose(results)


def test_how_this_machine_s_engine_counts_is_known_from_its_fingerprint(
    results: Results, change: Callable[..., None]
) -> None:
    change("metrics/machine.json", cpu=fingerprint()["cpu"])
    assert (results.looks_up(), results.counts_in_groups()) == (LOOKUP, bool(GROUPS))
    assert LOOKUP or results.word() == STEP
    assert prose(results).count("fewer instructions") == 2 * bool(GROUPS)  # the table of layers, and what R is


def test_noisy_points_of_every_sweep_are_counted(results: Results) -> None:
    assert "Read them with care" not in prose(results) and "(noisy" not in prose(results)
    for axis in ("threads", "filter_size"):
        path = results.root / f"plots/sweeps/{axis}.csv"
        rows = pd.read_csv(path)
        rows.loc[0, "noisy"] = True
        rows.to_csv(path, index=False)
    assert "Of the 14 speed-ups over torch in the sweeps, 2 are noisy, and none of those over the plain loop" in prose(
        results
    )
    assert prose(results).count("(noisy points among them)") == 1 and "x (noisy). ###" in prose(results)
    path = results.root / "plots/sweeps/filter_size.csv"
    pd.read_csv(path).assign(loop_noisy=True, noisy=False).to_csv(path, index=False)
    assert "1 is noisy, and 2 of those over the plain loop (* in tables" in prose(results)


def test_the_fastest_float_engine_is_named_where_it_is_not_torch(results: Results) -> None:
    assert "Over the fastest float32 contestant, ONNX Runtime float32, the gain is 15.0x" in prose(results)
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    rows[rows.contestant != "ONNX Runtime float32"].to_csv(path, index=False)
    assert "Over the fastest float32 contestant" not in prose(results)


STAGES = {
    "images": 100,
    "accuracy": 84.6,
    **{f"stage{n}": {"accuracy_without": 20.0, "stream_variance": 10.0**n} for n in (1, 2, 3)},
}


def test_a_stage_that_does_nothing_is_named(results: Results, change: Callable[..., None]) -> None:
    assert "What each stage" not in render(results)
    change("metrics/packed/mnist.json", "mnist", "packed", stages=STAGES)
    assert re.search(r"\| +stage 3 \| +20\.0 % \| +64\.6 points \| +1,000 \|", render(results))
    assert "contribute nothing" not in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage3", accuracy_without=84.5)
    after = prose(results)
    assert "the binary convolutions of stage 3, of 3, contribute nothing" in after
    assert "84.5 % of 100 validation images are right, as against 84.6 % with them" in after
    assert "The variance of the stream" not in after
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage3", stream_variance=1e6)
    assert "The variance of the stream grows from 10 to 1,000,000" in prose(results)
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage2", accuracy_without=90.0)
    assert "the binary convolutions of stages 2 and 3, of 3, contribute nothing" in prose(results)
    assert "The binary convolutions of its stages 2 and 3 contribute nothing" in render_card(results)
    change("metrics/packed/mnist.json", "mnist", "packed", "stages", "stage1", stream_variance=1e7)
    assert "The variance of the stream" not in prose(results)  # it does not grow


def test_a_training_that_broke_down_says_so(results: Results, change: Callable[..., None]) -> None:
    path = results.root / "plots/curves/mnist-xnor.csv"
    change("metrics/settings/mnist-xnor.json", "optimization", restarts=[], cutmix=0.0)
    curve = {
        "epoch": [1, 2, 3, 4, 5],
        "learning_rate": 0.1,
        "train_loss": [1.5, 1.0, 2.0, 1.2, 0.9],
        "train_accuracy": [30.0, 64.0, 23.0, 50.0, 70.0],
        "validation_accuracy": 50.0,
    }
    pd.DataFrame(curve).to_csv(path, index=False)
    fell = "broke down on the way: its accuracy on the training images fell from 64 % to 23 % in epoch 3"
    assert f"{fell}, and only in epoch 5 was the loss back where it had been." in prose(results)
    pd.DataFrame(curve | {"train_loss": [1.5, 1.0, 2.0, 1.2, 1.1]}).to_csv(path, index=False)
    assert f"{fell}, and the loss never came back to where it had been." in prose(results)
    again = {"train_loss": [1.0, 2.0, 0.9, 3.0, 2.9], "train_accuracy": [64.0, 23.0, 70.0, 10.0, 20.0]}
    pd.DataFrame(curve | again).to_csv(path, index=False)  # the first time is told, though the second one is worse
    assert "from 64 % to 23 % in epoch 2, and only in epoch 3 was the loss back" in prose(results)
    for calm in ({"train_loss": [1.5, 1.0, 1.4, 1.2, 1.1]}, {"train_accuracy": [99.0, 99.8, 99.1, 99.7, 99.9]}):
        pd.DataFrame(curve | calm).to_csv(path, index=False)
        assert "broke down" not in prose(results)
    pd.DataFrame(curve).to_csv(path, index=False)
    for excuse in ({"restarts": [{"after": 2, "learning_rate": 0.1}]}, {"restarts": [], "cutmix": 0.5}):
        change("metrics/settings/mnist-xnor.json", "optimization", **excuse)
        assert "broke down" not in prose(results)


def test_products_with_the_padding_explain_a_large_filter(results: Results) -> None:
    path = results.root / "plots/sweeps/filter_size.csv"
    rows = pd.read_csv(path)
    assert "of that layer lie in the padding" not in prose(results)
    rows.assign(macs=rows.macs_with_padding // 2).to_csv(path, index=False)
    assert "But 50 % of the products of that layer lie in the padding" in prose(results)
    assert "product for product, it is 8.5x or more" in prose(results)


def test_the_layer_in_which_sweeps_meet_has_a_range(results: Results) -> None:
    # 256 channels: 5 + 0.05 x 256 = 17.8x; the sweeps of filters and batches have 17.0x, that of image sizes no 14.
    before = prose(results)
    assert "is 17.0x to 17.8x faster than torch float32, packing included (in 3 sweeps" in before
    assert "But 10 % of the products lie in the padding" in before
    assert "Product for product it is 15.3x to 16.0x or more, less than the law" in before
    path = results.root / "plots/sweeps/input_channels.csv"
    pd.read_csv(path).assign(law_machine=10.0).to_csv(path, index=False)
    assert "Product for product it is still 15.3x to 16.0x or more" in prose(results)


def test_columns_of_a_filter_share_words_of_the_size_that_is_counted(
    results: Results, change: Callable[..., None]
) -> None:
    path = results.root / "plots/sweeps/input_channels.csv"
    rows = pd.read_csv(path).assign(kernel_seconds=1e-5)
    rows.to_csv(path, index=False)
    assert "share words" not in prose(results)  # looked up by bytes
    for flags, limits in (
        ([], "21 channels, 6 up to 42, and 9 up to 64"),
        (["avx512_vpopcntdq"], "10 channels, 6 up to 21"),
    ):
        change("metrics/machine.json", "cpu", vector_flags=flags)
        assert f"a 3x3 filter reads 3 words up to {limits}" in prose(results)
    rows.assign(torch_seconds=1e-4).to_csv(path, index=False)
    assert "the float convolution's falls with the work" not in prose(results)


def test_half_of_the_best_speedup_is_where_it_stays_above(results: Results) -> None:
    path = results.root / "plots/sweeps/input_channels.csv"
    rows = pd.read_csv(path)
    for speedups, start in (([5.0, 6.0, 12.0, 20.0], 64), ([12.0, 3.0, 4.0, 20.0], 256), ([12.0, 13.0, 14.0, 20.0], 1)):
        rows.assign(speedup_torch=speedups).to_csv(path, index=False)
        assert f"half of the best speed-up is reached from {start} input channels on" in prose(results)
    rows.assign(speedup_torch=[20.0, 14.0, 12.0, 8.0]).to_csv(path, index=False)
    written = prose(results)
    assert "half of the best" not in written and "input channels the speed-up changes from 20.0x to 8.0x" in written
    rows.assign(speedup_torch=[10.0, 14.0, 12.0, 8.0]).to_csv(path, index=False)
    assert "Between 1 and 256 input channels the speed-up changes only from 10.0x to 8.0x" in prose(results)
    rows[-1:].to_csv(path, index=False)
    assert "and 256 input channels" not in prose(results)


def test_the_study_s_verdicts_are_looked_up(results: Results, change: Callable[..., None]) -> None:
    assert 'validation accuracy is lower with "paper" (-0.50 points)' in prose(results)
    change("metrics/study/mnist.json", "mnist", "study", "paper", difference=-0.1, low=-0.3, high=0.1)
    assert 'with "paper", the fewest, and 12.5 % with "corrected", the most' in prose(results)
    change("metrics/study/mnist.json", "mnist", "study", "paper", signs_changed=20.0)
    after = prose(results)
    assert 'with "corrected", the fewest, and 20.0 % with "paper", the most' in after
    assert 'no difference is shown for "paper" (-0.10)' in after and "lower with" not in after
    change("metrics/study/mnist.json", "mnist", "study", "paper", difference=0.0, low=0.0, high=0.0)
    assert 'no difference is shown for "paper" (+0.00)' in prose(results)  # equal accuracies alone can be chance
    path = results.root / "plots/study/mnist.csv"
    rows = pd.read_csv(path)
    rows["train_loss"] = [0.10, 0.11, 0.12] * 2
    rows.to_csv(path, index=False)
    after = prose(results)
    assert 'exactly the same networks come out "paper"' in after and "no difference is shown for" not in after


def test_validation_that_lags_behind_training_is_explained(results: Results) -> None:
    assert "running statistics" not in prose(results)
    path = results.root / "plots/curves/mnist-xnor.csv"
    rows = pd.read_csv(path)
    rows["validation_accuracy"] = [50.0, 99.0]
    rows.to_csv(path, index=False)
    words = (
        "validation accuracy stays far below that in training (50 and 97 % in epoch 1) until epoch 1, when the learning"
    )
    assert f"{words} rate is down to 100 % of its peak" in prose(results)
    assert "{" not in prose(results)  # every name is filled in
    rows["validation_accuracy"] = 50.0  # it never comes right: that is no lag
    rows.to_csv(path, index=False)
    assert "running statistics" not in prose(results)
