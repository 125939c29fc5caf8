"""Somebody who presses Ctrl-C while the page's script trains."""

from __future__ import annotations

from pathlib import Path

SHOWN = "python train.py                 # press Ctrl-C after some epochs"
PAUSED = 75
PRESS = f"""
import signal
import subprocess
import sys

script = subprocess.Popen([sys.executable, "-u", "train.py"], stdout=subprocess.PIPE, text=True)
pressed = False
for line in script.stdout:
    print(line, end="")
    if line.startswith("epoch 5/") and not pressed:
        script.send_signal(signal.SIGINT)
        pressed = True
sys.exit(script.wait() != {PAUSED})
"""


def prepare(folder: Path) -> dict[str, str]:
    (folder / "press_ctrl_c.py").write_text(PRESS)
    return {SHOWN: "python press_ctrl_c.py"}
