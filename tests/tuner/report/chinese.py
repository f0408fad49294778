"""The folder of a run of which every name is Chinese."""

from __future__ import annotations

from pathlib import Path

from tests.tuner.report.folders import Folder, serving


def chinese_run(path: Path) -> Path:
    """A finished run of which every name is Chinese, some of them long."""
    metric, limited = "每秒输出词元数", "首词元时延九十分位（秒）"
    way, seqs = "调度策略名称", "最大并发请求数"
    ways = ["先来先服务", "最短作业优先，带抢占与前缀缓存复用，适用于长上下文多轮对话业务场景"]
    experiment = serving(
        "千问三-八B-昇腾910B-服务参数寻优实验",
        trial={"type": "serving", "model": "/数据盘/模型权重/通义千问-3-8B-指令微调-W8A8量化版"},
        objective={"maximize": metric, "limits": [{"metric": limited, "max": 0.5}]},
    )
    folder = Folder(path, experiment)
    for number in range(12):
        parameters = {seqs: 16 * (number + 1), way: ways[number % 2]}
        folder.measured(parameters, {metric: 100.0 + number, limited: 0.1 + 0.05 * number})
    said = "运行时错误：显存不足，无法分配 2.5 GB；请减少最大并发请求数，或者改用张量并行"
    folder.failed({"class": "out_of_memory", "stage": "deploy", "message": said, "excerpt": said})
    best = {seqs: 128, way: ways[1]}
    folder.status["name"] = experiment["name"]
    return folder.ends(
        "satisfied", best=best, message="已在十二个候选中选出最优", notes=["备注" * 40]
    )
