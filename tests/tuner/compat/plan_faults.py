"""Plans that are wrong in one way each, and the path of what is wrong."""

from __future__ import annotations

from tests.tuner.compat.tune import plan_text

BF, SH, SE = "binary_fallback", "standing_high", "standing_high_with_experience"
BENCH, ENGINE = "evaluation.evaluation", "evaluation.inference_engine"
EXPECT = "evaluation.demand.expectations"


def changed(name: str, old: str, new: str) -> str:
    text = plan_text(name)
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


def in_engine(old: str, new: str, name: str = BF) -> str:
    before, engine, after = plan_text(name).partition("  inference_engine:\n")
    assert old in after, old
    return before + engine + after.replace(old, new, 1)


def with_strategy(block: str) -> str:
    text = plan_text(BF)
    return f"strategy: {block}\n{text[text.index('evaluation:') :]}"


PRECHECK = "    aisbench:\n"

CASES = {
    "empty file": ("", ""),
    "a list": ("- strategy\n", ""),
    "not YAML": ("strategy: [a", ""),
    "an object of Python": ("strategy: !!python/object/apply:os.system ['true']", ""),
    "a top key repeated": (plan_text(BF) + "strategy: {}\n", "strategy"),
    "an inner key repeated": (
        changed(BF, "retry: 2", "retry: 2\n      retry: 3"),
        f"{BENCH}.aisbench.retry",
    ),
    "unknown top key": (plan_text(BF) + "strateg: {}\n", "strateg"),
    "no strategy": (plan_text(BF)[plan_text(BF).index("evaluation:") :], "strategy"),
    "strategy a word": (with_strategy("binary_fallback"), "strategy"),
    "unknown strategy": (changed(BF, "type: binary_fallback", "type: binary"), "strategy.type"),
    "strategy without type": (changed(BF, "  type: binary_fallback\n", ""), "strategy.type"),
    "unknown strategy key": (
        changed(BF, "rollback_candidates", "candidates"),
        "strategy.candidates",
    ),
    "no rollback path": (
        changed(BF, "  rollback_path: spec.process.1.exclude\n", ""),
        "strategy.rollback_path",
    ),
    "rollback path that leads nowhere": (
        changed(BF, "process.1.exclude", "process.2.exclude"),
        "strategy.rollback_path",
    ),
    "rollback path to a word": (
        changed(BF, "process.1.exclude", "process.1.type"),
        "strategy.rollback_path",
    ),
    "an empty candidate": (
        changed(BF, "rollback_candidates: []", 'rollback_candidates: ["a", " "]'),
        "strategy.rollback_candidates.1",
    ),
    "a candidate twice": (
        changed(BF, "rollback_candidates: []", "rollback_candidates: [a, b, a]"),
        "strategy.rollback_candidates",
    ),
    "no template": (
        with_strategy("{type: binary_fallback, rollback_path: spec.process.0.exclude}"),
        "strategy.template",
    ),
    "another apiversion": (
        changed(BF, "modelslim_v1", "modelslim_v0"),
        "strategy.template.apiversion",
    ),
    "unknown key in the practice": (
        changed(BF, "runner: auto", "runer: auto"),
        "strategy.template.spec.runer",
    ),
    "unknown key in a processor": (
        changed(BF, 'include: ["*"]', 'includes: ["*"]'),
        "strategy.template.spec.process.1.includes",
    ),
    "no outlier strategies": (
        with_strategy("{type: standing_high, anti_outlier_strategies: []}"),
        "strategy.anti_outlier_strategies",
    ),
    "a processor without type": (
        changed(SH, '- - type: "iter_smooth"\n        alpha', "- - alpha"),
        "strategy.anti_outlier_strategies.0.0.type",
    ),
    "outlier strategies not in lists": (
        changed(SH, '    - - type: "flex_smooth_quant"', "    - flex_smooth_quant"),
        "strategy.anti_outlier_strategies.1",
    ),
    "a template that quantizes nothing": (
        changed(SH, "type: linear_quant", "type: quarot"),
        "strategy.template",
    ),
    "unknown key in a template": (
        changed(SH, "runner: auto", "runner: auto\n    sav: []"),
        "strategy.template.sav",
    ),
    "metadata out of range": (
        changed(SH, "config_id: standing_high", "config_id: a\n    score: -1"),
        "strategy.metadata.score",
    ),
    "unknown quant type": (changed(SE, "w8a8", "w2a2"), "strategy.quant_type"),
    "an empty include": (
        changed(SE, '        - "*mlp*"', '        - ""'),
        "strategy.structure_configs.1.include.0",
    ),
    "a structure without include": (
        changed(SE, '      include:\n        - "*mlp*"\n', ""),
        "strategy.structure_configs.1.include",
    ),
    "a structure that nobody knows": (
        changed(SE, 'type: "FFN"', 'type: "FNF"'),
        "strategy.structure_configs.1.type",
    ),
    "a structure that the quant type cannot do": (changed(SE, "w8a8", "w4a8"), "strategy"),
    "a pattern in two structures": (changed(SE, "*mlp*", "*self_attn*"), "strategy"),
    "no evaluation": (plan_text(BF)[: plan_text(BF).index("evaluation:")], "evaluation"),
    "unknown evaluation type": (
        changed(BF, "service_oriented", "offline"),
        "evaluation.type",
    ),
    "unknown evaluation key": (
        changed(BF, "  demand:", "  demands: {}\n  demand:"),
        "evaluation.demands",
    ),
    "no demand": (
        changed(
            BF,
            plan_text(BF)[
                plan_text(BF).index("  demand:") : plan_text(BF).index("  evaluation:\n")
            ],
            "",
        ),
        "evaluation.demand",
    ),
    "no expectation": (
        changed(
            BF,
            '      - dataset: gsm8k\n        target: "83"\n        tolerance: "2"\n',
            "      []\n",
        ),
        EXPECT,
    ),
    "expectation without target": (changed(BF, '        target: "83"\n', ""), f"{EXPECT}.0.target"),
    "target zero": (changed(BF, '"83"', "0"), f"{EXPECT}.0.target"),
    "target a word": (changed(BF, '"83"', "high"), f"{EXPECT}.0.target"),
    "target not a number": (changed(BF, '"83"', ".nan"), f"{EXPECT}.0.target"),
    "target true": (changed(BF, '"83"', "true"), f"{EXPECT}.0.target"),
    "negative tolerance": (changed(BF, '"2"', "-0.1"), f"{EXPECT}.0.tolerance"),
    "expectation of no dataset": (
        changed(BF, "dataset: gsm8k", "dataset: gsm9k"),
        f"{EXPECT}.0.dataset",
    ),
    "two expectations of a dataset": (
        changed(
            BF,
            "      - dataset: gsm8k",
            "      - {dataset: gsm8k, target: 1, tolerance: 1}\n      - dataset: gsm8k",
        ),
        f"{EXPECT}.1.dataset",
    ),
    "unknown evaluator": (changed(BF, "type: aisbench", "type: lm_eval"), f"{BENCH}.type"),
    "another binary": (changed(BF, "binary: ais_bench", "binary: rm"), f"{BENCH}.aisbench.binary"),
    "unknown key of aisbench": (
        changed(BF, "      retry: 2", "      retries: 2"),
        f"{BENCH}.aisbench.retries",
    ),
    "request rate zero": (
        changed(BF, "request_rate: 1.0", "request_rate: 0"),
        f"{BENCH}.aisbench.request_rate",
    ),
    "batch size a word": (
        changed(BF, "batch_size: 32", "batch_size: large"),
        f"{BENCH}.aisbench.batch_size",
    ),
    "timeout true": (changed(BF, "timeout: 7200", "timeout: yes"), f"{BENCH}.aisbench.timeout"),
    "retry negative": (changed(BF, "retry: 2", "retry: -1"), f"{BENCH}.aisbench.retry"),
    "unknown key of model_meta": (
        changed(BF, "subdir: vllm_api", "sub_dir: vllm_api"),
        f"{BENCH}.aisbench.model_meta.sub_dir",
    ),
    "dataset without config": (
        changed(BF, '        config_name: "gsm8k_gen_0_shot_cot_str"\n', ""),
        f"{BENCH}.datasets.gsm8k.config_name",
    ),
    "dataset with an unknown key": (
        changed(BF, "        mode: all\n    host", "        modes: all\n    host"),
        f"{BENCH}.datasets.gsm8k.modes",
    ),
    "dataset's length zero": (
        changed(SH, "max_out_len: 1024", "max_out_len: 0"),
        f"{BENCH}.datasets.bfcl-simple.max_out_len",
    ),
    "precheck with an unknown key": (
        changed(SH, "        max_tokens: 256", "        tokens: 256"),
        f"{BENCH}.precheck.0.tokens",
    ),
    "precheck without type": (
        changed(BF, PRECHECK, "    precheck: [{max_tokens: 5}]\n" + PRECHECK),
        f"{BENCH}.precheck.0.type",
    ),
    "precheck without test cases": (
        changed(
            BF, PRECHECK, "    precheck: [{type: expected_answer, test_cases: []}]\n" + PRECHECK
        ),
        f"{BENCH}.precheck.0.test_cases",
    ),
    "precheck with an empty question": (
        changed(SH, '- "What is 2+2?": ["4", "four"]', '- " ": "4"'),
        f"{BENCH}.precheck.0.test_cases.0",
    ),
    "two questions in one test case": (
        changed(
            BF,
            PRECHECK,
            "    precheck: [{type: expected_answer, test_cases: [{a: b, c: d}]}]\n" + PRECHECK,
        ),
        f"{BENCH}.precheck.0.test_cases.0",
    ),
    "unknown garbled item": (
        changed(
            BF,
            PRECHECK,
            "    precheck: [{type: garbled_text, test_cases: [{message: hi, items: [nonsense]}]}]\n"
            + PRECHECK,
        ),
        f"{BENCH}.precheck.0.test_cases.0.items.0",
    ),
    "another port in the evaluation": (
        changed(BF, "port: 1234", "port: 1235"),
        f"{BENCH}.port",
    ),
    "another name in the evaluation": (
        changed(BF, "served_model_name: served_model_name", "served_model_name: qwen"),
        f"{BENCH}.served_model_name",
    ),
    "another host in the evaluation": (
        changed(BF, "host: localhost", "host: 127.0.0.1"),
        f"{BENCH}.host",
    ),
    "another name in the engine's arguments": (
        in_engine("served-model-name: served_model_name", "served-model-name: qwen"),
        f"{ENGINE}.args.served-model-name",
    ),
    "another port in the engine's arguments": (
        in_engine("enforce-eager: true", "port: 8000"),
        f"{ENGINE}.args.port",
    ),
    "unknown engine": (in_engine("type: vllm-ascend", "type: mindie-x"), f"{ENGINE}.type"),
    "unknown key of the engine": (
        in_engine("startup_timeout: 600", "startup_time: 600"),
        f"{ENGINE}.startup_time",
    ),
    "startup timeout zero": (
        in_engine("startup_timeout: 600", "startup_timeout: 0"),
        f"{ENGINE}.startup_timeout",
    ),
    "port out of range": (
        changed(BF, "port: 1234", "port: 70000").replace("port: 1234", "port: 70000"),
        f"{BENCH}.port|{ENGINE}.port",
    ),
    "a host that everybody reaches": (
        changed(BF, "host: localhost", "host: 8.8.8.8").replace("host: localhost", "host: 8.8.8.8"),
        f"{ENGINE}.host",
    ),
    "an endpoint without slash": (
        in_engine("/v1/models", "v1/models"),
        f"{ENGINE}.health_check_endpoint",
    ),
    "a width that is none": (
        in_engine("tensor-parallel-size: 1", "tensor-parallel-size: 0"),
        f"{ENGINE}.args.tensor-parallel-size",
    ),
    "no engine": (plan_text(BF)[: plan_text(BF).index("  inference_engine:")], ENGINE),
}
