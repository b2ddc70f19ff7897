"""Captions of printed tables, and the Chinese words of captions, headers and cells."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from utils.document import Table
from utils.metrics.significance import MARK_LEGEND
from utils.plots.translations import translate

MEANS = "Mean ± standard deviation over seeds"
UNCORRECTED = f"{MARK_LEGEND}, not corrected for multiple comparisons"
INTERVALS = "Difference from {baseline} with its 95 % interval"
# By heading of a section of the report: a caption for each of its tables; if there are more of them, one for those
# without intervals and one for those with.
CAPTIONS: Mapping[str, tuple[str, ...]] = {
    "Accuracy": (
        "Accuracy on the {images} images of the {split}. {means}; P, R and F1 are means over classes at IoU 0.5 and at "
        "the confidence of the best mean F1.",
    ),
    "Differences": ("{intervals}. {marks}{correction}; the verdict is on mAP50-95.",),
    "Ablation": (
        "Ablation. {means}; difference from {baseline} with its 95 % interval. {marks}{correction}.",
        "Effects and interactions of the switches with 95 % intervals. {marks}.",
    ),
    "Further differences": ("{intervals}. {uncorrected}.",),
    "COCO metrics": ("COCO's metrics. {means}.", "COCO's metrics. {intervals}. {uncorrected}."),
    "Per seed": ("mAP50-95 of each seed, in brackets the difference from {baseline}.",),
    "Per class": (
        "Classes: {of}. {means}.",
        "Classes: {of}. {means}; differences with 95 % intervals. {uncorrected}.",
    ),
    "Per object size": (
        "Object sizes: {of}. {means}.",
        "Object sizes: {of}. {means}; differences with 95 % intervals. {uncorrected}.",
    ),
    "Errors": (
        "Gain of AP at IoU 0.5 if all errors of one kind were corrected (TIDE). {means}.",
        "Gain of AP at IoU 0.5 by kind of error (TIDE). {intervals}. {uncorrected}.",
    ),
    "Cost": ("Size of the models and cost of training.", "Speed of inference, batch size 1, medians per image."),
}
JOINT_CAPTIONS: Mapping[str, tuple[str, ...]] = {
    "Accuracy": ("mAP50-95 on each data set. {means}.",),
    "Differences": (
        "{of}: difference from {baseline} on each data set and mean over the sets, with 95 % intervals. {marks}.",
    ),
    "Ablation": (
        "{of}: effects of the switches on each data set and mean over the sets, with 95 % intervals. {marks}.",
    ),
    "Other data sets": ("Random-effects mean of the difference in mAP50-95, with its 95 % interval.",),
}
SPLITS = {"val": "validation split", "test": "test split"}
HOLM = " (p-values Holm-corrected)"
CHINESE = {
    MEANS: "均值 ± 标准差（按随机种子）",
    MARK_LEGEND: "* p < 0.05，** p < 0.01，*** p < 0.001",
    UNCORRECTED: "* p < 0.05，** p < 0.01，*** p < 0.001，未做多重比较校正",
    INTERVALS: "与 {baseline} 的差值及其 95% 置信区间",
    HOLM: "（p 值经 Holm 校正）",
    CAPTIONS["Accuracy"][0]: (
        "{split}（{images} 张图像）上的检测精度。{means}；"
        "P、R、F1 为 IoU 阈值 0.5、平均 F1 最高的置信度阈值下的类别均值。"
    ),
    CAPTIONS["Differences"][0]: "{intervals}。{marks}{correction}；结论基于 mAP50-95。",
    CAPTIONS["Ablation"][0]: "消融实验。{means}；与 {baseline} 的差值及其 95% 置信区间。{marks}{correction}。",
    CAPTIONS["Ablation"][1]: "各开关的主效应与交互效应及其 95% 置信区间。{marks}。",
    CAPTIONS["Further differences"][0]: "{intervals}。{uncorrected}。",
    CAPTIONS["COCO metrics"][0]: "COCO 指标。{means}。",
    CAPTIONS["COCO metrics"][1]: "COCO 指标。{intervals}。{uncorrected}。",
    CAPTIONS["Per seed"][0]: "各随机种子的 mAP50-95，括号内为与 {baseline} 的差值。",
    CAPTIONS["Per class"][0]: "各类别：{of}。{means}。",
    CAPTIONS["Per object size"][0]: "各目标尺寸：{of}。{means}。",
    CAPTIONS["Per class"][1]: "各类别：{of}。{means}；差值附 95% 置信区间。{uncorrected}。",
    CAPTIONS["Per object size"][1]: "各目标尺寸：{of}。{means}；差值附 95% 置信区间。{uncorrected}。",
    CAPTIONS["Errors"][0]: "消除某一类错误后 AP（IoU 阈值 0.5）的提升（TIDE）。{means}。",
    CAPTIONS["Errors"][1]: "各类错误对应的 AP 提升（IoU 阈值 0.5，TIDE）。{intervals}。{uncorrected}。",
    CAPTIONS["Cost"][0]: "模型规模与训练开销。",
    CAPTIONS["Cost"][1]: "推理速度：批大小为 1，单张图像的中位数。",
    JOINT_CAPTIONS["Accuracy"][0]: "各数据集上的 mAP50-95。{means}。",
    JOINT_CAPTIONS["Differences"][0]: "{of}：各数据集上与 {baseline} 的差值及数据集均值，附 95% 置信区间。{marks}。",
    JOINT_CAPTIONS["Ablation"][0]: "{of}：各数据集上开关的效应及数据集均值，附 95% 置信区间。{marks}。",
    JOINT_CAPTIONS["Other data sets"][0]: "mAP50-95 差值的随机效应均值及其 95% 置信区间。",
    "Comparison: {}": "模型对比：{}",
    "Model": "模型",
    "Seeds": "种子数",
    "Difference": "差值",
    "p (Holm)": "p（Holm）",
    "Verdict on mAP50-95": "结论（mAP50-95）",
    "better": "更优",
    "worse": "更差",
    "inconclusive": "尚无定论",
    "more together": "共同作用更强",
    "less together": "共同作用更弱",
    "all together, beyond the sum": "全部开关（超出各自效应之和）",
    "validation split": "验证集",
    "test split": "测试集",
    "Effect": "效应",
    "Pairs": "模型对数",
    "Difference in mAP50-95": "mAP50-95 差值",
    "Objects in images": "目标数（图像数）",
    "small": "小目标",
    "medium": "中目标",
    "large": "大目标",
    "tiny": "微小目标",
    "AP small": "AP（小目标）",
    "AP medium": "AP（中目标）",
    "AP large": "AP（大目标）",
    "AP tiny": "AP（微小目标）",
    "Gain of AP": "AP 提升",
    "AP at IoU 0.5": "AP（IoU 0.5）",
    "Classification": "分类错误",
    "Localization": "定位错误",
    "Both": "分类与定位错误",
    "Duplicate": "重复检测",
    "Background": "背景误检",
    "Missed": "漏检",
    "All false positives": "全部误检",
    "All false negatives": "全部漏检",
    "Parameters": "参数量",
    "Sampling GFLOPs": "采样 GFLOPs",
    "File MB, fp32": "文件 MB（fp32）",
    "File MB, fp16": "文件 MB（fp16）",
    "Training s": "训练时间 s",
    "Training GB": "训练内存 GB",
    "Preprocessing ms": "预处理 ms",
    "Inference ms, median": "推理 ms（中位数）",
    "NMS ms": "NMS ms",
    "FPS, network alone": "FPS（仅网络）",
    "FPS, end to end": "FPS（端到端）",
    "Inference GB": "推理内存 GB",
    "All tables and figures. Include those that you need; the tables need the packages of this file.": (
        "全部表格与插图。按需选用；表格需要本文件导言区的宏包。"
    ),
    "Mean": "均值",
    "Joint verdict": "合并结论",
    "Random-effects mean": "随机效应均值",
}
CHINESE_PATTERNS = {r"seed (\d+)": r"种子 \1", r"(\d+) in (\d+)": r"\1（\2）"}


def caption_of(template: str, lang: str, values: Mapping[str, str]) -> str:
    """Return a caption in a language, with its fixed parts and the `values` of a comparison filled in."""
    parts = {"means": MEANS, "marks": MARK_LEGEND, "uncorrected": UNCORRECTED, "intervals": INTERVALS}
    filled = {name: word_in(part, lang).format_map(values) for name, part in parts.items()}
    known = {**filled, **values, "correction": word_in(HOLM, lang) if values.get("correction") else ""}
    return word_in(template, lang).format_map(known)


def table_in(table: Table, lang: str, *, names: Collection[str] = (), words_first: bool = False) -> Table:
    """Return a table with the words of its headers and cells in a language.

    `names` stay, but not in the first column of rows if that holds words.
    """

    def shown(cell: str) -> str:
        return cell if cell in names else word_in(cell, lang)

    first = [word_in(row[0], lang) if words_first else shown(row[0]) for row in table.rows]
    rows = [[name, *map(shown, row[1:])] for name, row in zip(first, table.rows, strict=True)]
    return Table(header=[shown(cell) for cell in table.header], rows=rows)


def word_in(text: str, lang: str) -> str:
    """Return a header, cell or caption in a language; a text without translation stays."""
    if lang == "en":
        return text
    for pattern, replacement in CHINESE_PATTERNS.items():
        if re.fullmatch(pattern, text):
            return re.sub(pattern, replacement, text)
    return CHINESE.get(text) or translate(text, lang)
