"""Methods and results as text: equal to results.json, complete in both languages, and silent on what is unknown."""

import re
import string
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.comparison_results import CLASSES, synthetic_result
from utils.comparison.ablation import AblationEffects, Effect, ablation_effects
from utils.comparison.ablation_design import Ablation
from utils.comparison.methods import METRIC_ORDER, methods_sections
from utils.comparison.result import ComparisonResult, results_content
from utils.comparison.sentences import Writer, sentences
from utils.comparison.statistics import compare_with_baseline
from utils.comparison.training_facts import training_facts
from utils.document import BulletList, to_markdown
from utils.metrics.significance import BETTER
from utils.options import CompareOptions, TrainOptions
from utils.options.hyperparameters import Hyperparameters

LANGUAGES = ("en", "zh")
OPTIONS = CompareOptions(cfg=("a.yaml", "b.yaml"), data=("sets/blood/data.yaml",))
ENVIRONMENT = {
    **{"python": "3.12.3", "torch": "2.8.0", "torchvision": "0.23.0", "numpy": "2.3.1", "opencv": "4.12.0"},
    **{
        "platform": "Linux-6.8.0-x86_64",
        "processor": "AMD EPYC",
        "cpu_count": 2,
        "torch_threads": 2,
        "device": "cpu",
        "gpu": None,
        "git": "0123456789abcdef",
    },
}
# Names and abbreviations that Chinese papers keep.
KEPT = set(
    "AKConv AP CPU COCO GFLOPs HSV IoU Linux MixUp Mosaic NMS Nesterov NumPy OpenCV PR PyTorch Python SGD Warnings "
    "Welch Satterthwaite Holm bootstrap compare.md git mAP torchvision ms blood A B F P R p t".split()
)
UNESCAPED = re.compile(r"(?<!\\)(?:[*`$|]|<(?=\w)|(?<![^\W_])_|_(?![^\W_]))")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    """Three models, trained three times each by the comparison; the last has offset convolutions."""
    result, _ = synthetic_result(["plain", "better", "best-of-all"], tmp_path_factory.mktemp("runs"), epochs=2)
    return known(result)


def known(result: ComparisonResult, **args: object) -> ComparisonResult:
    """The result with everything that a whole comparison knows, the last model with offset convolutions."""
    models = []
    for model in result.models:
        hyp = asdict(Hyperparameters())
        if model is not result.models[-1]:
            del hyp["offset_lr"]
        facts = {"hyperparameters": hyp, "image_size": 320, "training_images": 241, "training_objects": 997}
        runs = []
        for seed, run in enumerate(model.runs):
            options = {"data": OPTIONS.data[0], "batch_size": 8, "epochs": 77, "patience": 11, "seed": seed, **args}
            runs.append(replace(run, **facts, args=asdict(TrainOptions(**options))))
        models.append(replace(model, runs=tuple(runs), is_finished_weights=False))
    costs = [{**cost, "image_size": 352} for cost in result.costs]
    return replace(
        result, models=models, costs=costs, environment=ENVIRONMENT, resamples=123, timing_noise=(0.0123, 0.02)
    )


def paragraphs(result: ComparisonResult, lang: str, options: CompareOptions = OPTIONS) -> dict[str, list[str]]:
    """Return the text of each section by key of its heading; nothing in it is an unfilled or unknown value."""
    title, *sections = methods_sections(result, options, lang)
    assert title.level == 1 and not title.blocks
    keys = {text: key for key, text in sentences(lang).items()}
    found = {}
    for section in sections:
        blocks = [list(block.items) if isinstance(block, BulletList) else [block] for block in section.blocks]
        found[keys[section.heading]] = [text for block in blocks for text in block]
    text = "\n".join(line for lines in found.values() for line in lines)
    assert not re.search(r"nan|None|[{}]|  |。。|、。|\(\)|（）", text), text
    return found


def placeholders(text: str) -> list[str]:
    return sorted(str(field) for _, field, _, _ in string.Formatter().parse(text) if field is not None)


def test_both_languages_have_the_same_sentences_with_the_same_values():
    english, chinese = map(sentences, LANGUAGES)
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert placeholders(text) == placeholders(chinese[key]), key


def test_a_sentence_without_its_value_is_empty():
    say = Writer("en")
    assert say("seeds", "0 and 1") and say("part", 0.0)
    assert say("seeds", None) == say("seeds", say.listed([])) == say("Adam", optimizer="Adam") == ""
    assert say.listed("a") == "a" and say.listed("abc") == "a, b and c" and Writer("zh").listed("abc") == "a、b、c"
    assert say.remark("a", "") == "a" and say.paragraph("", "a", "", "b") == "a b"


def numbers(line: str) -> list[str]:
    """Return difference, ends of the interval and p-value, as written."""
    return re.findall(r"[+-]\d\.\d{3}|p [=<] \d\.\d{3}", line)


def written(row: dict[str, float]) -> list[str]:
    """Return the same of a row of results.json."""
    p = row["p_value_corrected"]
    return [f"{row[name]:+.3f}" for name in ("value", "low", "high")] + [f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_results_are_those_of_results_json(trained: ComparisonResult, lang: str):
    content = results_content(trained, OPTIONS)
    lines = paragraphs(trained, lang)["results"]
    rows = [
        (pair["model"], {key[2]: row for key in METRIC_ORDER for row in pair["differences"] if is_row(row, key)})
        for pair in content["comparisons"]
    ]
    expected = [(model, metric, row) for model, by_metric in rows for metric, row in by_metric.items()]
    assert [metric for _, metric, _ in expected] == ["map50_95", "map50"] * 2 and len(lines) == 4
    points = {row["model"]: row for row in content["results"]}
    for line, (model, metric, row) in zip(lines, expected, strict=True):
        assert numbers(line) == written(row)
        values = re.findall(r"(?<![\d+-])\d\.\d{3}(?= ±)", line)
        assert values == [f"{points[name][metric]:.3f}" for name in (model, "plain")] and model in line
    verdicts = [
        sentences(lang)[pair["verdict"]] in line for pair, line in zip(content["comparisons"], lines[::2], strict=True)
    ]
    assert all(verdicts)


def is_row(row: dict[str, object], key: tuple[str, str, str]) -> bool:
    return (row["group"], row["name"], row["metric"]) == key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_effects_of_an_ablation_are_those_of_results_json(trained: ComparisonResult, lang: str):
    labels = dict(zip(("plain", "better", "best-of-all"), ((), ("A",), ("A", "B")), strict=True))
    ablation = Ablation(switches=("A", "B"), on={label: frozenset(on) for label, on in labels.items()})
    result = replace(trained, ablation=ablation_effects(ablation, trained.scores, images=24))
    effects = results_content(result, OPTIONS)["ablation"]["effects"]
    lines = paragraphs(result, lang)["results"][4:]
    rows = [row for effect in effects for key in METRIC_ORDER for row in effect["differences"] if is_row(row, key)]
    assert len(effects) == 2 and list(map(numbers, lines)) == list(map(written, rows))
    assert len(paragraphs(result, lang)["statistics"][0]) > len(paragraphs(trained, lang)["statistics"][0])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_interaction_is_no_gain_and_metrics_besides_the_primary_one_have_no_verdict(
    trained: ComparisonResult, lang: str
):
    words = sentences(lang)
    decided = trained.pairs[0]
    verdicts = {key: replace(verdict, decision=BETTER) for key, verdict in decided.verdicts.items()}
    effects = [
        Effect(
            title="t",
            differences=decided.differences,
            verdicts=verdicts,
            marks={},
            switches=switches,
            weights={},
            pairs=1,
        )
        for switches in (("A",), ("A", "B"))
    ]
    ablation = Ablation(switches=("A", "B"), on={"plain": frozenset()})
    result = replace(trained, pairs=[], ablation=AblationEffects(ablation=ablation, effects=effects))
    main, main50, interaction, interaction50 = paragraphs(result, lang)["results"][-4:]
    assert words["better"] in main and words["positive"] in interaction and words["better"] not in interaction
    assert not any(words[key] in line for key in ("better", "positive") for line in (main50, interaction50))


@pytest.mark.parametrize(("batch_size", "decay"), [(16, 0.0005), (24, 0.0005625), (128, 0.001)])
def test_weight_decay_is_that_of_the_optimizer(trained: ComparisonResult, batch_size: int, decay: float):
    model = trained.models[0]
    runs = tuple(replace(run, args={**run.args, "batch_size": batch_size}) for run in model.runs)
    text = training_facts(replace(model, runs=runs), Writer("en"))["optimizer"]
    assert f"weight decay of {decay:g}" in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_text_has_what_the_comparison_knows(trained: ComparisonResult, lang: str):
    found = paragraphs(trained, lang)
    expected = {
        "data": ["blood", *CLASSES, "24", str(len(trained.val.labels)), "241", "997"],
        "models": ["plain", "1,760,000", "4.2", "1,850,000", "352"],
        "training": ["77", "8", "320", "11", "SGD", "0.937", "0.0005", "64", "0.01", "0.0001", "0.015", "0.5"],
        "evaluation": ["352", "0.001", "0.6", "300", "101", "32²", "96²"],
        "time": ["8", "40", "0.25", "0.45", "30.0 ms", "35.0 ms", "1.2%"],
        "statistics": ["plain", "24", "123", "95", "0.04", "10"],
        "environment": ["3.12.3", "2.8.0", "0.23.0", "2.3.1", "4.12.0", "Linux", "AMD EPYC", "0123456789"],
        "limits": ["50", "30", *CLASSES[:1]],
    }
    assert list(found) == [*list(expected)[:-1], "results", "limits"]
    for key, values in expected.items():
        text = " ".join(found[key])
        assert [value for value in values if value not in text] == []
    single = found["training"][1]
    assert single.startswith("best-of-all") and "0.1" in single, "only the last model has offset convolutions"


def test_chinese_has_no_english_beyond_names_and_abbreviations(trained: ComparisonResult):
    everything = replace(
        known(trained, weights="w.pt", optimizer="AdamW", cos_lr=True, freeze=(3,), multi_scale=True, fraction=0.5),
        warnings=["A sentence in English."],
        excluded=["dog of large (1 in 1)"],
    )
    for result in (trained, everything, unknown(trained), one_seed(trained)):
        for lines in paragraphs(result, "zh").values():
            for line in lines:
                words = re.findall(
                    r"[A-Za-zβ][A-Za-z.-]*", re.sub(r"w\.pt|AMD EPYC|AdamW|plain|better|best-of-all", "", line)
                )
                assert set(words) <= {*KEPT, *CLASSES, "β"}, line
                assert line.endswith(("。", ")")) and not re.search(r"[一-鿿][,.;:]|\D, ", line)


def unknown(result: ComparisonResult) -> ComparisonResult:
    """The result of weights whose files hold nothing but the network, on an unknown machine."""
    models = []
    for model in result.models:
        empty = {"args": {}, "hyperparameters": {}, "training_images": None, "training_objects": None}
        models.append(replace(model, runs=tuple(replace(run, **empty) for run in model.runs), is_finished_weights=True))
    return replace(result, models=models, environment={}, costs=[{}] * len(models))


def one_seed(result: ComparisonResult, *, fixed_weights: bool = False) -> ComparisonResult:
    """The result of the first run of each model."""
    scores = [
        replace(
            model,
            fixed_weights=fixed_weights,
            seeds=model.seeds[:1],
            metrics={
                key: replace(of, points=of.points[:1], resampled=of.resampled[:1]) for key, of in model.metrics.items()
            },
        )
        for model in result.scores
    ]
    models = [replace(model, runs=model.runs[:1], is_finished_weights=fixed_weights) for model in result.models]
    return replace(result, scores=scores, models=models, pairs=compare_with_baseline(scores, images=24))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_is_unknown_is_left_out(trained: ComparisonResult, lang: str):
    found = paragraphs(unknown(trained), lang)
    assert set(found) == {"data", "models", "training", "evaluation", "statistics", "results", "limits"}
    assert found["training"] == [Writer(lang)("unknown", Writer(lang).listed(m.label for m in trained.models))]
    assert len(found["data"]) == 1 and not re.search(r"\d", found["models"][0])
    damaged = replace(trained, models=[*unknown(trained).models[:1], *trained.models[1:]])
    training = paragraphs(damaged, lang)["training"]
    assert training[-1] == Writer(lang)("unknown", "plain") and "77" in training[0]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_settings_that_differ_are_given_for_each_model(trained: ComparisonResult, lang: str):
    other = known(trained, epochs=55, data="elsewhere.yaml", rect=True).models[1]
    mixed = replace(trained, models=[trained.models[0], other, trained.models[2]])
    common, *own = paragraphs(mixed, lang)["training"][:4]
    assert "77" not in common and "SGD" in common
    assert [("77" in line, "55" in line) for line in own] == [(True, False), (False, True), (True, False)]
    assert ["mosaic" in line.lower() for line in own] == [True, False, True], "none in rectangular batches"
    assert "elsewhere" in " ".join(paragraphs(mixed, lang)["data"][1:])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_statistics_say_what_intervals_cover(trained: ComparisonResult, lang: str):
    def keys(result: ComparisonResult) -> set[str]:
        text = paragraphs(result, lang)["statistics"][0]
        names = ("seeds_covered", "images_covered", "fixed_weights", "no_verdict", "level", "borrowed", "holm")
        patterns = {key: re.sub(r"\\{.*?\\}", ".+", re.escape(sentences(lang)[key])) for key in names}
        return {key for key, pattern in patterns.items() if re.search(pattern, text)}

    assert keys(trained) == {"seeds_covered", "level", "holm"}
    assert keys(one_seed(trained)) == {"images_covered", "no_verdict", "holm"}
    assert keys(one_seed(trained, fixed_weights=True)) == {"images_covered", "fixed_weights", "level", "holm"}
    scores = [trained.scores[0], one_seed(trained).scores[1]]
    borrowed = replace(
        trained,
        scores=scores,
        models=trained.models[:2],
        costs=trained.costs[:2],
        pairs=compare_with_baseline(scores, images=24),
    )
    assert keys(borrowed) == {"seeds_covered", "borrowed", "level"}
    assert "±" not in " ".join(paragraphs(one_seed(trained), lang)["results"])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_without_differences_the_values_remain(trained: ComparisonResult, lang: str):
    one = replace(trained, models=trained.models[:1], scores=trained.scores[:1], costs=trained.costs[:1], pairs=[])
    for result, count in ((one, 1), (replace(trained, pairs=[]), 3)):
        found = paragraphs(result, lang)
        *values, reason = found["results"]
        assert len(values) == 2 * count and not numbers("".join(values)) and reason in sentences(lang).values()
        assert found["statistics"] == [sentences(lang)["means"]]
    pair = trained.pairs[0]
    differences = {key: replace(of, low=np.nan, high=np.nan) for key, of in pair.differences.items()}
    lines = paragraphs(replace(trained, pairs=[replace(pair, differences=differences)]), lang)["results"]
    assert [len(numbers(line)) for line in lines] == [1, 1]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_markdown_shows_any_name_as_it_is(tmp_path: Path, lang: str):
    names: Sequence[str] = ("*a*", "_b_ __c__", "$x$", "<script>", "`d`")
    result, _ = synthetic_result(names, tmp_path, seeds=2, epochs=2, classes=names[:3])
    result = known(replace(result, warnings=["*w*"]))
    sections = methods_sections(result, OPTIONS, lang)
    text = to_markdown(sections, tmp_path)
    assert not UNESCAPED.search(text)
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    assert all(line in shown for lines in paragraphs(result, lang).values() for line in lines)


def test_limits_are_those_of_the_result(trained: ComparisonResult):
    test, selected = replace(OPTIONS, task="test"), Writer("en")("selected")
    assert selected in paragraphs(trained, "en")["limits"][0]
    assert selected not in paragraphs(trained, "en", test)["limits"][0]
    assert paragraphs(replace(trained, warnings=["w1", "w2"]), "en")["limits"][1:] == ["w1", "w2"]
    assert paragraphs(replace(trained, support={}), "en")["limits"] != paragraphs(trained, "en")["limits"]
