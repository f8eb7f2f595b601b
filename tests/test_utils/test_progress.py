import re

from avdet_mm.utils import progress
from avdet_mm.utils.progress import Progress


class Clock:

    def __init__(self, monkeypatch):
        self.now = 100.
        monkeypatch.setattr(progress.time, 'monotonic', lambda: self.now)


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(10) as shown:
        for _ in range(3):
            clock.now += 5
            shown.update(1, '1 unreadable')
    assert capsys.readouterr().out == ''
    with Progress(10, 'videos') as shown:
        for _ in range(4):
            clock.now += 5
            shown.update(1, '1 unreadable')
    assert capsys.readouterr().out.splitlines() == [
        '4 of 10, 0.2 videos/s, 0:00:30 left, 1 unreadable'
    ]


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv('TTY_COMPATIBLE', '1')
    monkeypatch.setenv('FORCE_COLOR', '1')
    clock = Clock(monkeypatch)
    with Progress(2) as shown:
        clock.now += 1
        shown.update(1)
        clock.now += 1
        shown.update(1)
    text = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', capsys.readouterr().out)
    assert '2/2' in text
    assert '1.0 clips/s, 0:00:00 left' in text


def test_nothing_when_not_wanted(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    for shown in (Progress(5, show=False), Progress(0)):
        with shown:
            clock.now += 20
            shown.update(1)
    assert capsys.readouterr().out == ''
