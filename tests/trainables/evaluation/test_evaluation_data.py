"""Reading of datasets, and the quality of the shipped ones."""

import json
from collections import Counter

import pytest

from trainables.evaluation import (
    ChoiceDataset,
    DatasetError,
    TextDataset,
    dataset_digest,
    read_choices,
    read_text,
)


def choices(path, **options):
    return ChoiceDataset(kind="multiple_choice", path=str(path), **options)


def text(path):
    return TextDataset(path=str(path))


def test_every_fault_of_a_file_is_reported_with_its_line(tmp_path):
    lines = [
        '{"question": "a?", "choices": ["x", "y"], "answer": 0, "source": "kept out of the way"}',
        '{"question": "a?", "choices": ["x", "y"], "answer": 2}',
        "",
        '{"question": "a?", "choices": ["x", "x"], "answer": 0}',
        '{"question": "", "choices": ["x"], "answer": -1}',
        "no json",
        '{"question": "a?", "choices": ["x", " "], "answer": "0"}',
        "[1]",
    ]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_choices(choices(file))
    problems = caught.value.problems
    numbers = Counter(int(problem.split(":")[1]) for problem in problems)
    assert numbers == {2: 1, 4: 1, 5: 3, 6: 1, 7: 1, 8: 1}
    assert all(problem.startswith(f"{file}:") for problem in problems)
    assert "answer is 2, but the choices are 0 to 1" in problems[0]


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\x00"])
def test_empty_and_undecodable_files_are_refused(tmp_path, content):
    for name, read, dataset in (("a.txt", read_text, text), ("a.jsonl", read_choices, choices)):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=str(file)):
            read(dataset(file))


def test_missing_files_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        read_text(text(tmp_path / "absent.txt"))
    with pytest.raises(DatasetError, match="builtin:prose"):
        read_text(text("builtin:verse"))


def test_lines_of_text_are_joined_by_blank_lines(tmp_path):
    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "One\u2028line."}\n{"text": "Two.", "id": 2}\n', encoding="utf-8")
    assert read_text(text(file)) == "One\u2028line.\n\nTwo."


def test_a_part_of_the_items_is_spread_over_the_file(tmp_path):
    file = tmp_path / "items.jsonl"
    items = [{"question": str(n), "choices": ["x", "y"], "answer": 0} for n in range(10)]
    file.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    assert [item.question for item in read_choices(choices(file, items=4))] == ["0", "2", "5", "7"]
    assert len(read_choices(choices(file, items=99))) == 10


def test_digest_follows_the_content_not_the_place(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("same", encoding="utf-8")
    second.write_text("same", encoding="utf-8")
    digest = dataset_digest(str(first))
    assert digest == dataset_digest(str(second))
    second.write_text("other", encoding="utf-8")
    assert digest != dataset_digest(str(second))


def test_shipped_questions_are_sound():
    items = read_choices(choices("builtin:choice"))
    assert len(items) >= 120
    assert len({item.question for item in items}) == len(items)
    assert all(len({choice.lower() for choice in item.choices}) == 4 for item in items)
    assert all(item.question.endswith("?") or "next" in item.question for item in items)
    assert all(choice == choice.strip() for item in items for choice in item.choices)
    subjects = Counter(item.subject for item in items)
    assert len(subjects) >= 6
    assert min(subjects.values()) >= 10


@pytest.mark.parametrize("count", [48, 96, None])
def test_shipped_answers_are_evenly_placed_in_any_part(count):
    items = read_choices(choices("builtin:choice", items=count))
    places = Counter(item.answer for item in items)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) <= 0.35 * len(items)
    assert min(places.values()) >= 0.15 * len(items)


def test_the_right_answer_is_not_given_away_by_its_length():
    items = read_choices(choices("builtin:choice"))
    longest = sum(len(item.choices[item.answer]) == max(map(len, item.choices)) for item in items)
    shortest = sum(len(item.choices[item.answer]) == min(map(len, item.choices)) for item in items)
    assert longest < 0.5 * len(items)
    assert shortest < 0.5 * len(items)


def test_shipped_prose_is_long_varied_and_plain():
    prose = read_text(text("builtin:prose"))
    assert len(prose.split()) > 4500
    assert prose.isascii()
    assert "def " in prose
    assert '"' in prose
    paragraphs = [part for part in prose.split("\n\n") if part.strip()]
    assert len(set(paragraphs)) == len(paragraphs)
