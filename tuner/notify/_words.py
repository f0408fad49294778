"""The words of both languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Words:
    """Patterns of one language, filled in with ``str.format``.

    Attributes:
        titles: By kind of a notice, some of them with the case after a dot.
        lines: By what they say.
        units: Days, hours, minutes, seconds; joined by ``gap``.
    """

    titles: Mapping[str, str]
    lines: Mapping[str, str]
    verdicts: Mapping[str, str]
    trials: Mapping[str, str]
    units: tuple[str, str, str, str]
    gap: str
    comma: str


_ENGLISH = Words(
    titles={
        "start": "started",
        "start.resumed": "resumed",
        "heartbeat": "running, {trials}{score}",
        "trial_done": "#{number} {trial} measured{metric}",
        "best": "new best{score}",
        "failed": "#{number} {trial} failed",
        "timeout": "#{number} {trial} timed out",
        "crashed": "#{number} {trial} crashed",
        "crashed.run": "the run crashed",
        "abnormal": "#{number} {trial} failed and is tried again",
        "abnormal.run": "something is wrong, the run goes on",
        "done": "over, {verdict}{score}",
        "test": "test message, this channel works",
    },
    lines={
        "parameters": "parameters: {}",
        "metrics": "measured: {}",
        "broken": "demand not met: {}",
        "failure": "{stage}{failure}: {message}",
        "before": "before: {}",
        "progress": "trials: {trials}{failed}{reused}",
        "failed": ", {} failed",
        "reused": ", {} reused",
        "of": "{} of {}",
        "elapsed": "elapsed: {}",
        "elapsed_of": "elapsed: {} of {}",
        "best": "best so far: {}",
        "won": "best: {}",
        "known": "measurements known before: {}",
        "died": "the session before was killed",
        "again": "next: attempt {}",
        "running": "next: {}",
        "under": "#{number} {trial} in stage {stage} for {time}",
        "search": "next: the search decides",
        "remaining": "about {} to go",
        "delivered": "delivered in {}",
        "resume": "next: python -m tuner resume {}",
        "records": "records in {}",
        "defaults": "defaults",
        "items": "{name} {count} items",
    },
    verdicts={
        "satisfied": "demands met",
        "exhausted": "nothing satisfies",
        "budget": "budget spent",
        "interrupted": "interrupted",
        "failed": "failed",
    },
    trials={
        "candidate": "candidate",
        "baseline": "baseline",
        "verification": "verification",
        "analysis": "analysis",
    },
    units=(" d", " h", " min", " s"),
    gap=" ",
    comma=", ",
)
_CHINESE = Words(
    titles={
        "start": "开始运行",
        "start.resumed": "继续运行",
        "heartbeat": "运行中，{trials}{score}",
        "trial_done": "试验 #{number}（{trial}）完成{metric}",
        "best": "新的最优结果{score}",
        "failed": "试验 #{number}（{trial}）失败",
        "timeout": "试验 #{number}（{trial}）超时",
        "crashed": "试验 #{number}（{trial}）崩溃",
        "crashed.run": "调优程序异常退出",
        "abnormal": "试验 #{number}（{trial}）失败，即将重试",
        "abnormal.run": "出现异常，运行继续",
        "done": "运行结束，{verdict}{score}",
        "test": "测试消息，此通道可用",
    },
    lines={
        "parameters": "参数：{}",
        "metrics": "测得：{}",
        "broken": "未达到要求：{}",
        "failure": "{stage}{failure}：{message}",
        "before": "此前最优：{}",
        "progress": "试验数：{trials}{failed}{reused}",
        "failed": "，失败 {}",
        "reused": "，复用 {}",
        "of": "{} / {}",
        "elapsed": "已用时间：{}",
        "elapsed_of": "已用时间：{}，预算 {}",
        "best": "目前最优：{}",
        "won": "最优：{}",
        "known": "此前已有测量：{}",
        "died": "上一个会话被强制终止",
        "again": "下一步：第 {} 次尝试",
        "running": "下一步：{}",
        "under": "试验 #{number}（{trial}）处于阶段 {stage}，已 {time}",
        "search": "下一步：由搜索策略决定",
        "remaining": "预计还需 {}",
        "delivered": "结果位于 {}",
        "resume": "下一步：python -m tuner resume {}",
        "records": "记录位于 {}",
        "defaults": "默认值",
        "items": "{name} 共 {count} 项",
    },
    verdicts={
        "satisfied": "已达到要求",
        "exhausted": "没有满足要求的配置",
        "budget": "预算已用完",
        "interrupted": "被中断",
        "failed": "失败",
    },
    trials={
        "candidate": "候选",
        "baseline": "基线",
        "verification": "复核",
        "analysis": "分析",
    },
    units=(" 天", " 小时", " 分", " 秒"),
    gap=" ",
    comma="，",
)

WORDS: Mapping[Language, Words] = {"en": _ENGLISH, "zh": _CHINESE}
