"""Log lines: what others can bring about as often as they like fills no disk."""

from __future__ import annotations

import logging

import pytest

from ticketrush import logs


def test_an_event_that_comes_often_is_logged_once_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr("ticketrush.logs.time.monotonic", lambda: now_s)
    seldom = logs.Seldom(logs.get("ticketrush.tests"), "knocked")
    with caplog.at_level(logging.WARNING, "ticketrush.tests"):
        for number in range(1_000):
            seldom.warning(number=number)
        now_s += logs.SELDOM_S
        seldom.warning(number=1_000)

    said = [(record.message, vars(record)["count"], vars(record)["number"]) for record in caplog.records]
    assert said == [("knocked", 1, 0), ("knocked", 1_000, 1_000)]


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_uvicorn_says_is_said_once(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        logs.configure("info", form)
        colours = {"color_message": "Started server process [\x1b[36m%d\x1b[0m]"}
        logging.getLogger("uvicorn.error").info("Started server process [%d]", 7, extra=colours)
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
    said = capsys.readouterr().err
    assert "Started server process [7]" in said
    assert "color" not in said
    assert "uvicorn.error" not in said
