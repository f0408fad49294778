"""Replies that no language has, and dull ones that are fine."""

import time

import pytest

from trainables.evaluation._garbled import SYMPTOMS

SOUND = [
    "44",
    "aab",
    "4",
    "Ok.",
    "...",
    "I'm doing well, thank you! How can I help you today?",
    "你好！我很好，谢谢你的关心。今天有什么可以帮助你的吗？",
    "元気です。ありがとうございます。",
    "잘 지내요, 감사합니다!",
    "मैं ठीक हूँ, धन्यवाद।",
    "I am fine 😊😊😊",
    "1/7 = 0.142857142857142857142857",
    "One million is 1000000.",
    "Hmmmmm, let me think.",
    "no no no",
    "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
    "f(x) = (x + 1) * (x - 1)",
    "Title\n=====\n\nSome text that follows the title and goes on for a while.",
]
GARBLED = [
    ("", "empty_text"),
    (" \n\t ", "empty_text"),
    (".....", "repeated_char"),
    ("!!!!!!!!!!!!!!!!", "repeated_char"),
    ("Yes aaaaaaaaaaaaaaaa", "repeated_char"),
    ("的的的的的的的的的的的的", "repeated_char"),
    ("\ufffd\ufffd\u2592x\ufffd\ufffd\u2592", "normal_char_ratio"),
    ("\ue000\ue001\ue002\ue003ab", "normal_char_ratio"),
    ("!@#$%^&*()_+{}|:<>?", "normal_char_ratio"),
    ("ok\x00\x01\x02\x03", "control_char"),
    ("ababababababababab", "repeated_pattern"),
    ("@#" * 40, "repeated_pattern"),
    ("I am fine. I am fine. I am fine. I am fine.", "repeated_pattern"),
    ("Well, " + "and then " * 30, "repeated_pattern"),
    ("A sensible answer of some length. " + "你好吗" * 20, "repeated_pattern"),
    ("Sense that goes on and on. ".join("abcdefghijklmnopq") + "the end " * 40, "repeated_pattern"),
]


def symptoms(reply):
    return {name for name, find in SYMPTOMS.items() if find(reply)}


@pytest.mark.parametrize("reply", SOUND)
def test_text_in_any_language_is_no_garbage(reply):
    assert symptoms(reply) == set()


@pytest.mark.parametrize(("reply", "symptom"), GARBLED)
def test_garbage_is_told(reply, symptom):
    assert symptom in symptoms(reply)


def test_a_reason_says_what_was_seen():
    loop = SYMPTOMS["repeated_pattern"]("Well, " + "and then " * 30)
    assert loop.endswith("30 times in a row, of 275 characters")
    assert SYMPTOMS["repeated_char"](".....") == "'.' 5 times in a row, of 5 characters"


def test_long_replies_are_looked_at_quickly():
    text = "".join(chr(97 + (n * n * 31 + n) % 26) for n in range(20_000))
    started = time.process_time()
    symptoms(text)
    assert time.process_time() - started < 5
