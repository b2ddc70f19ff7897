"""The words of figures in Chinese, looked up by the English ones."""

from __future__ import annotations

from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[str, ...] = get_args(Language)
CHINESE = {
    "precision": "精确率",
    "recall": "召回率",
    "F1": "F1 分数",
    "confidence": "置信度阈值",
    "epoch": "训练轮次",
    "box loss": "边界框损失",
    "objectness loss": "目标置信度损失",
    "class loss": "分类损失",
    "training": "训练集",
    "validation": "验证集",
    "parameters, millions": "参数量（百万）",
    "inference, ms per image": "单张图像推理时间（ms）",
    "Pareto front": "帕累托前沿",
    "true class": "真实类别",
    "predicted class": "预测类别",
    "background": "背景",
    "share of the true class": "占真实类别的比例",
    "joint mean": "合并均值",
    "difference from {}": "与 {} 的差值",
    "difference from {}, 95 % interval": "与 {} 的差值及 95% 置信区间",
    "Line: mean over runs; band: lowest to highest run.": "曲线为各次训练的均值，色带为最小值至最大值的范围。",
    "Precision-recall, F1, precision and recall curves at IoU 0.5, mean over classes. {}": (
        "IoU 阈值为 0.5 时各类别平均的 PR、F1、精确率和召回率曲线。{}"
    ),
    "Accuracy and losses over epochs. {}": "精度与损失随训练轮次的变化。{}",
    "Accuracy against cost. Error bars: lowest to highest run; filled: on the Pareto front.": (
        "精度与计算开销的关系。误差线为各次训练的最小值至最大值，实心标记为帕累托前沿上的模型。"
    ),
    "Differences from {} with 95 % intervals.": "与 {} 的差值及其 95% 置信区间。",
    "Differences from {} on each data set and their joint mean, with 95 % intervals.": (
        "各数据集上与 {} 的差值、合并均值及其 95% 置信区间。"
    ),
    "mAP50-95 of each class; error bars: lowest to highest run. Right: differences with 95 % intervals.": (
        "各类别的 mAP50-95，误差线为各次训练的最小值至最大值；右图为差值及其 95% 置信区间。"
    ),
    "Confusion matrices, each column normalized; detections with a confidence above {}, IoU above {}.": (
        "按列归一化的混淆矩阵，统计置信度大于 {} 的检测框，匹配的 IoU 阈值为 {}。"
    ),
    "Accuracy and loss over epochs, differences with 95 % intervals, and accuracy over cost": (
        "精度与损失随训练轮次的变化、差值及其 95% 置信区间、精度与计算开销的关系"
    ),
    "no true positive": "没有检测正确的目标",
}


def translate(text: str, lang: str, *values: str) -> str:
    """Return a text of a figure in a language, the text itself if it is the same in all; `values` fill its braces."""
    chosen = CHINESE.get(text, text) if lang == "zh" else text
    return chosen.format(*values) if values else chosen
