"""Rules, and how the stage program asks a served model."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from trainables import StageError
from trainables.evaluation import (
    Fault,
    Precheck,
    PrecheckOptions,
    make_precheck,
    precheck_types,
    register_precheck,
)
from trainables.evaluation.precheck import precheck


class Server(ThreadingHTTPServer):
    """Answers as ``reply(path, request)`` says: a status, and a text or a document."""

    daemon_threads = True

    def __init__(self, reply):
        self.reply, self.asked = reply, []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, request))
        status, said = self.server.reply(self.path, request)
        if isinstance(said, str):
            chat = self.path == "/v1/chat/completions"
            said = {"choices": [{"message": {"content": said}} if chat else {"text": said}]}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def serve():
    servers = []

    def start(reply):
        always = (200, reply)
        answer = (lambda path, request: always) if isinstance(reply, str) else reply
        servers.append(Server(answer))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(server, *rules):
    return precheck({"url": server.url, "model": "m", "rules": list(rules)})


def expected(*cases, **options):
    return {"type": "expected_answer", "test_cases": list(cases), **options}


def test_a_sound_model_passes_all_rules(serve):
    server = serve("I am fine, and 2+2 = 4.")
    found = ask(server, {"type": "expected_answer"}, {"type": "garbled_text"})
    assert found["passed"]
    assert found["rules"] == [
        {"type": "expected_answer", "passed": True},
        {"type": "garbled_text", "passed": True},
    ]
    assert [request["messages"][0]["content"] for _, request in server.asked] == [
        "What is 2+2?",
        "How are you?",
    ]


def test_requests_are_what_vllm_understands(serve):
    server = serve("4")
    ask(server, {"type": "expected_answer", "max_tokens": 7})
    path, request = server.asked[0]
    assert path == "/v1/chat/completions"
    assert request["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert (request["model"], request["max_tokens"]) == ("m", 7)
    assert request["temperature"] == 0.1
    assert "extra_body" not in request


def test_the_first_rule_that_fails_ends_it_with_the_reply(serve):
    server = serve("@#" * 30)
    found = ask(server, {"type": "garbled_text"}, {"type": "expected_answer"})
    assert not found["passed"]
    (rule,) = found["rules"]
    assert (rule["type"], rule["message"]) == ("garbled_text", "How are you?")
    assert rule["reply"] == "@#" * 30
    assert rule["reason"].startswith("normal_char_ratio: only 0%")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("case", "reply", "passes"),
    [
        ({"Capital of France?": "paris"}, "It is PARIS.", True),
        ({"Capital of France?": "paris"}, "It is Lyon.", False),
        ({"Capital of France?": ["Lyon", "Paris"]}, "Paris", True),
        ({"message": "How many?", "expected_answer": 4}, "4", True),
        ({"message": "How many?", "expected_answer": ["four", "4"]}, "five", False),
        ({"message": "Anything?", "expected_answer": None}, "", True),
        ({"Anything?": ""}, "x", True),
        ({"Anything?": []}, "x", True),
        ({"中国的首都是哪里？": "北京"}, "中国的首都是北京。", True),
        ({"Straße?": "STRASSE"}, "die straße", True),
    ],
)
def test_expected_answers(serve, case, reply, passes):
    assert ask(serve(reply), expected(case))["passed"] is passes


def test_only_the_wanted_symptoms_count(serve):
    cases = [{"message": "Say nothing.", "items": ["control_char"]}]
    assert ask(serve(""), {"type": "garbled_text", "test_cases": cases})["passed"]
    assert not ask(serve(""), {"type": "garbled_text"})["passed"]


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"message": "you must provide a chat template if the tokenizer has none"}),
        (404, {"detail": "Not Found"}),
    ],
)
def test_a_model_without_a_chat_template_completes_instead(serve, refusal):
    server = serve(lambda path, _: refusal if "chat" in path else (200, "4"))
    found = ask(server, {"type": "expected_answer"}, {"type": "expected_answer"})
    assert (found["passed"], found["endpoint"]) == (True, "completions")
    paths = [path for path, _ in server.asked]
    assert paths == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]
    assert server.asked[1][1]["prompt"] == "What is 2+2?"


@pytest.mark.parametrize(
    ("refusal", "failure"),
    [
        ((500, {"message": "expect A to be bfloat16"}), "network"),
        ((503, {"message": "busy"}), "network"),
        ((400, {"message": "max_tokens is too large"}), "input"),
        ((404, {"message": "The model `m` does not exist."}), "input"),
        ((200, b"<html>"), "tool"),
        ((200, {"choices": []}), "tool"),
    ],
)
def test_a_question_that_gets_no_reply_is_no_pass_and_no_finding(serve, refusal, failure):
    with pytest.raises(StageError) as caught:
        ask(serve(lambda path, _: refusal), {"type": "garbled_text"})
    assert caught.value.failure == failure


def test_silence_is_a_timeout(serve):
    silent = threading.Event()
    server = serve(lambda path, _: (silent.wait(120), (200, "4"))[1])
    try:
        with pytest.raises(StageError, match=r"within 0\.2 s") as caught:
            ask(server, {"type": "expected_answer", "timeout": 0.2})
        assert caught.value.failure == "timeout"
    finally:
        silent.set()


def test_an_absent_server_is_a_failure_of_the_network(serve):
    server = serve("4")
    server.shutdown()
    server.server_close()
    with pytest.raises(StageError, match="ConnectError") as caught:
        ask(server, {"type": "expected_answer"})
    assert caught.value.failure == "network"


def test_a_model_that_only_thinks_is_heard(serve):
    said = {"choices": [{"message": {"content": None, "reasoning_content": "So 4."}}]}
    assert ask(serve(lambda path, _: (200, said)), {"type": "expected_answer"})["passed"]


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "expected_answer", "test_cases": []},
        {"type": "expected_answer", "test_cases": [{"message": "x" * 4097}]},
        {"type": "expected_answer", "max_tokens": 0},
        {"type": "expected_answer", "timeout": 0},
        {"type": "expected_answer", "test_case": []},
        {"type": "garbled_text", "test_cases": [{"items": ["wit"]}]},
    ],
)
def test_wrong_rules_are_refused(rule):
    with pytest.raises(ValidationError):
        make_precheck(rule)


def test_rules_of_others_are_taken(serve, monkeypatch):
    from trainables.evaluation import _prechecks

    known = dict(_prechecks._PRECHECKS._classes)
    monkeypatch.setattr(_prechecks._PRECHECKS, "_classes", known)

    @register_precheck("polite")
    class Polite(Precheck):
        Options = PrecheckOptions

        def find_fault(self, ask):
            reply = ask("Thanks!")
            return None if "welcome" in reply else Fault("Thanks!", reply, "is rude")

        def questions(self):
            return 1

    assert set(precheck_types()) == {"expected_answer", "garbled_text", "polite"}
    assert ask(serve("You are welcome."), {"type": "polite"})["passed"]
    assert ask(serve("So what?"), {"type": "polite"})["rules"][0]["reason"] == "is rude"
    with pytest.raises(StageError, match="there is no precheck 'kind'"):
        ask(serve("x"), {"type": "kind"})
