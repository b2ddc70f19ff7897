"""The words of figures in Chinese, looked up by the English ones, and captions in both languages."""

from __future__ import annotations

LANGUAGES = ("en", "zh")  # in the order of a caption's texts
CHINESE = {
    "precision": "精确率",
    "recall": "召回率",
    "F1": "F1 分数",
    "confidence threshold": "置信度阈值",
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
    "number of the true class": "真实类别编号",
    "number of the predicted class": "预测类别编号",
    "background": "背景",
    "share of the true class": "占真实类别的比例",
    "joint mean": "合并均值",
    "difference from {}": "与 {} 的差值",
    "difference from {}, 95 % interval": "与 {} 的差值及 95% 置信区间",
    "no true positive": "没有检测正确的目标",
    "{}: {} points, stride {}, on a map of {} x {}": "{}：{} 个采样点，步长 {}，特征图 {} × {}",
    "mean |offset| {} px of the map, {} of its points outside ({} before learning)": (
        "平均 |偏移| 为特征图的 {} 个像素，{} 的采样点在图外（学习前 {}）"
    ),
    "one pixel of the map (white grid) is {} x {} pixels of the image": (
        "特征图的一个像素（白色网格）相当于图像的 {} × {} 个像素"
    ),
    "initial shape": "初始形状",
    "learned shape": "学习后的形状",
    "offset": "偏移",
    "border of the map": "特征图边界",
    "rows": "行方向",
    "columns": "列方向",
    "mean |offset| {} px": "平均 |偏移| {} 像素",
    "outside {}, initially {}": "图外 {}，初始 {}",
    "offset in pixels of the layer's map (outermost bars include larger offsets)": (
        "偏移，以该层特征图的像素为单位（最外侧的柱含更大的偏移）"
    ),
    "fraction of points": "采样点的比例",
    "{}, 1: maximum of each map": "{}，1 为各图的最大值",
    "boxes: {}": "框：{}",
    "solid labelled": "实线为标注",
    "dashed predicted": "虚线为预测",
    "energy held by the strongest pixels": "最强的像素所含的能量",
}
CAPTIONS: dict[str, tuple[str, str]] = {  # of figures, and parts of them, in English and in Chinese
    "overview": (
        "Accuracy and loss over epochs, differences with 95 % intervals, and accuracy over cost. {bands}",
        "精度与损失随训练轮次的变化、差值及其 95% 置信区间、精度与计算开销的关系。{bands}",
    ),
    "curves": (
        "Precision over recall, and F1, precision and recall over the confidence threshold, at IoU 0.5, mean over "
        "classes, on {images} images. {bands} Precision ends where a class has no detection left.",
        "{images} 张图像上 IoU 阈值为 0.5 时的 PR 曲线，以及 F1 分数、精确率和召回率随置信度阈值的变化，"
        "均为各类别的平均。{bands}精确率曲线止于某一类别不再有检测框之处。",
    ),
    "training": (
        "mAP on the validation split, and losses, over epochs. {bands}",
        "验证集上的 mAP 以及损失随训练轮次的变化。{bands}",
    ),
    "ended": (
        " Where the shortest run has ended, thin lines are the other runs.",
        "最短的训练结束之后，细线为其余各次训练。",
    ),
    "trade_off": (
        "mAP50-95, the mean over IoU 0.5 to 0.95, on {images} images, against cost at {pixels} px; inference time is "
        "the median at batch size 1. {bars} Filled: on the Pareto front, no other model is cheaper and as accurate, or "
        "as cheap and more accurate.",
        "{images} 张图像上的 mAP50-95（IoU 阈值 0.5 至 0.95 的平均）与输入尺寸 {pixels} px 时计算开销的关系；"
        "推理时间为批大小为 1 时的中位数。{bars}实心标记为帕累托前沿上的模型："
        "没有其他模型开销更低且精度不低于它，或开销相同而精度更高。",
    ),
    "differences": (
        "Differences from {baseline} on {images} images, with {intervals}. P, R and F1 are at IoU 0.5 and the "
        "confidence of the best mean F1.",
        "{images} 张图像上与 {baseline} 的差值及其 {intervals}。"
        "P、R、F1 取 IoU 阈值为 0.5、平均 F1 最高的置信度阈值处的值。",
    ),
    "data sets": (
        "Differences from {baseline} on each data set, and their mean, in which all sets have the same weight, with "
        "{intervals}.",
        "各数据集上与 {baseline} 的差值、合并均值（各数据集权重相同）及其{intervals}。",
    ),
    "most significant": (
        " Shown are the {shown} of {all} models with the smallest p-values.",
        "仅显示 p 值最小的 {shown} 个模型（共 {all} 个）。",
    ),
    "classes": (
        "mAP50-95, the mean over IoU 0.5 to 0.95, of each class on {images} images. {bars}",
        "{images} 张图像上各类别的 mAP50-95（IoU 阈值 0.5 至 0.95 的平均）。{bars}",
    ),
    "class differences": (
        " Right: differences from {baseline} with {intervals}.",
        "右图为与 {baseline} 的差值及其 {intervals}。",
    ),
    "largest differences": (
        " Shown are the {shown} of {all} classes with the largest differences.",
        "仅显示差值最大的 {shown} 个类别（共 {all} 个）。",
    ),
    "first classes": (" Shown are the first {shown} of {all} classes.", "仅显示前 {shown} 个类别（共 {all} 个）。"),
    "confusion": (
        "Confusion matrices on {images} images, over all runs, each column as shares of the true class. Detections "
        "with a confidence above {confidence} are paired with objects at an IoU above {iou}; background: missed "
        "objects (row) and false positives (column).",
        "{images} 张图像上各次训练合计的混淆矩阵，每列为占该真实类别的比例。"
        "置信度大于 {confidence} 的检测框与 IoU 大于 {iou} 的目标配对；“背景”一行为漏检目标，一列为误检。",
    ),
    "bands": ("Mean over {runs}; bands from the lowest to the highest.", "均值取自 {runs}，色带为最小值至最大值。"),
    "bars": (
        "Mean over {runs}; error bars from the lowest to the highest.",
        "均值取自 {runs}，误差线为最小值至最大值。",
    ),
    "one run": ("One run of each model.", "每个模型训练一次。"),
    "seeds": ("{count} seeds", "{count} 个随机种子"),
    "runs": ("{count} runs", "{count} 次训练"),
    "intervals": ("95 % intervals over images", "95% 置信区间（图像抽样）"),
    "intervals with seeds": ("95 % intervals over images and seeds", "95% 置信区间（图像抽样与随机种子）"),
}


def translate(text: str, lang: str, *values: str) -> str:
    """Return a text of a figure in a language, the text itself if it is the same in all; `values` fill its braces."""
    chosen = CHINESE.get(text, text) if lang == "zh" else text
    return chosen.format(*values) if values else chosen


def caption(name: str, lang: str, **values: object) -> str:
    """Return a caption of `CAPTIONS` in a language; `values` fill its braces."""
    return CAPTIONS[name][LANGUAGES.index(lang)].format(**values)
