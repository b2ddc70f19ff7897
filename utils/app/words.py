"""The words of the page in English and Chinese."""

from __future__ import annotations

from collections.abc import Callable

Words = Callable[..., str]

WORDS: dict[str, tuple[str, str]] = {
    "language": ("en", "zh"),
    "title": ("Detections and AKConv", "目标检测与 AKConv"),
    "other language": ("中文", "English"),
    "note": (
        "This page shows trained models; it does not train. Uploads stay on this machine; they are deleted "
        "after an hour, and when the server stops.",
        "本页面用于查看训练好的模型，不能在此训练。上传的文件只保存在本机，一小时后或服务停止时删除。",
    ),
    "detect": ("Image", "单张图像"),
    "files": ("Files and videos", "批量与视频"),
    "compare": ("Two models", "模型对比"),
    "explain": ("Inside AKConv", "AKConv 可视化"),
    "browse": ("Finished comparison", "对比实验"),
    "help": ("Help", "说明"),
    "image": ("Image: file, webcam or clipboard", "图像：文件、摄像头或剪贴板"),
    "uploads": ("Images and videos", "图像与视频"),
    "settings": ("Settings", "参数设置"),
    "model": ("Model", "模型"),
    "first": ("First model", "模型一"),
    "second": ("Second model", "模型二"),
    "conf": ("Confidence threshold", "置信度阈值"),
    "iou": ("IoU threshold of NMS", "NMS 的 IoU 阈值"),
    "size": ("Image size", "输入尺寸"),
    "own size": ("as trained", "与训练时相同"),
    "classes": ("Classes (none chosen: all)", "类别（不选则为全部）"),
    "device": ("Device", "设备"),
    "run": ("Detect", "开始检测"),
    "run compare": ("Compare", "开始对比"),
    "run explain": ("Show this position", "查看该位置"),
    "result": ("Detections", "检测结果"),
    "table": ("Table", "结果表格"),
    "downloads": ("Downloads", "下载"),
    "columns": ("image,frame,class,confidence,xmin,ymin,xmax,ymax", "图像,帧,类别,置信度,xmin,ymin,xmax,ymax"),
    "box columns": ("class,confidence,xmin,ymin,xmax,ymax", "类别,置信度,xmin,ymin,xmax,ymax"),
    "no image": ("Choose an image first.", "请先选择图像。"),
    "no file": ("Choose files first.", "请先选择文件。"),
    "failed": ("Not done: {}", "未完成：{}"),
    "internal": (
        "Not done: an internal error ({}); the terminal shows details.",
        "未完成：内部错误（{}），详情见终端。",
    ),
    "found": ("{} detections in {:.0f} ms: {}", "共 {} 个目标，耗时 {:.0f} ms：{}"),
    "found files": ("{} detections in {} files, {:.0f} ms.", "{1} 个文件，共 {0} 个目标，耗时 {2:.0f} ms。"),
    "shown rows": ("The table shows the first {} rows.", "表格只显示前 {} 行。"),
    "cut": ("{}: only the first {} frames.", "{}：只处理了前 {} 帧。"),
    "needs two": (
        "Start app.py with several --weights to compare two models.",
        "需要在启动 app.py 时用 --weights 给出两个以上模型。",
    ),
    "compared": (
        "Both find {}; {} of different classes; only {}: {}; only {}: {}. Thick: differences. Thin grey: found by "
        "both (same class, IoU at least 0.5).",
        "共同检出 {} 个，位置相同而类别不同 {} 个；仅 {} 检出 {} 个，仅 {} 检出 {} 个。"
        "粗框为差异，灰色细框为两个模型共同检出（类别相同且 IoU ≥ 0.5）。",
    ),
    "kind both": ("both", "共同检出"),
    "kind class": ("class differs", "类别不同"),
    "kind first": ("only first", "仅模型一"),
    "kind second": ("only second", "仅模型二"),
    "compare columns": (
        "difference,class 1,confidence 1,class 2,confidence 2,IoU",
        "差异,类别一,置信度一,类别二,置信度二,IoU",
    ),
    "click": ("Click on a position of the image", "点击图像中的任一位置"),
    "x": ("x in pixels", "x（像素）"),
    "y": ("y in pixels", "y（像素）"),
    "layers": ("AKConv layers", "AKConv 层"),
    "views": ("Show", "显示内容"),
    "sampling": ("Sampling points", "采样点"),
    "offsets": ("Histogram of offsets", "偏移量直方图"),
    "cam": ("Class activation map", "类激活图"),
    "field": ("Effective receptive field", "有效感受野"),
    "method": ("Method of the class activation map", "类激活图方法"),
    "position": ("Position {:.0f}, {:.0f}.", "位置 {:.0f}, {:.0f}。"),
    "legend": (
        "Squares: initial sampling points; orange: learned ones; dashed: border of the layer's map. "
        "A click on a figure enlarges it.",
        "方框为初始采样点，橙色圆点为学习后的采样点，虚线为该层特征图的边界。点击图可放大。",
    ),
    "explained": ("The class activation map explains {}.", "类激活图所解释的检测：{}。"),
    "no target": ("No prediction covers this position.", "该位置没有预测框。"),
    "no akconv": ("{} has no AKConv layers.", "{} 没有 AKConv 层。"),
    "open report": ("Open the report in its own tab", "在新标签页中打开报告"),
    "report": ("Report", "报告"),
    "images": ("Images", "图像"),
    "kind": ("Boxes", "框的类型"),
    "all": ("any", "全部"),
    "true positive": ("true positive", "正确检出"),
    "false positive": ("false positive", "误检"),
    "false negative": ("false negative", "漏检"),
    "class": ("Class", "类别"),
    "object size": ("Object size", "目标大小"),
    "small": ("small (below 32² px)", "小目标（小于 32² 像素）"),
    "medium": ("medium", "中目标"),
    "large": ("large (from 96² px)", "大目标（96² 像素以上）"),
    "page": ("Page", "页码"),
    "page of": ("Page {} of {}.", "第 {} 页，共 {} 页。"),
    "labels": ("labels", "标注"),
    "f1": ("{}: F1 {:.2f} (mean of its runs)", "{}：F1 {:.2f}（各次训练的平均）"),
    "browsed": (
        "{} of {} images; those on which the models differ most come first. Green: true positive, vermilion: false "
        "positive, orange: false negative. Thick: the selected kind.",
        "共 {1} 张图像，符合条件 {0} 张，模型差异最大的排在前面。"
        "绿色为正确检出，橙红色为误检，橙黄色为漏检；粗框为所筛选的框。",
    ),
    "help text": (
        "- **Image**: detections of one model, with downloads.\n"
        "- **Files and videos**: up to {files} files of at most {megabytes} MB and {pixels} million pixels; the first "
        "{frames} frames of a video.\n"
        "- **Two models**: what only one of them finds.\n"
        "- **Inside AKConv**: where each layer samples for the position that you click, before and after learning.\n"
        "- **Finished comparison**: start with `--comparison runs/compare/NAME`.\n\nModels come from the command line "
        "only: `python app.py --weights a.pt b.pt`. Training is done in a terminal: `python train.py --help`.",
        "- **单张图像**：一个模型的检测结果，可下载。\n"
        "- **批量与视频**：最多 {files} 个文件，每个不超过 {megabytes} MB、"
        "{pixels}00 万像素；视频只处理前 {frames} 帧。\n"
        "- **模型对比**：只有其中一个模型检出的目标。\n"
        "- **AKConv 可视化**：点击图像中的位置，查看各层在学习前后的采样点。\n"
        "- **对比实验**：启动时加上 `--comparison runs/compare/NAME`。\n\n"
        "模型只能在命令行中指定：`python app.py --weights a.pt b.pt`。训练请在终端进行：`python train.py --help`。",
    ),
}


def words_in(lang: str) -> Words:
    """Return a function that returns a text of `WORDS` in a language, with values in its braces if any are given."""
    column = ("en", "zh").index(lang)

    def words(key: str, *values: object, **named: object) -> str:
        text = WORDS[key][column]
        return text.format(*values, **named) if values or named else text

    return words
