"""Runs the commands of a document's example and compares what they print: run_example.py DOCUMENT BEGINNING [--update].

The example is the block of ```console whose first line begins so. A line that begins with `$ ` is a command, with the lines
behind it that are indented by four; the others are what it prints.
"""

import pathlib
import re
import subprocess
import sys


def main(document, beginning, update=False):
    path = pathlib.Path(document)
    text = path.read_text()
    block = next(block for block in re.findall(r"```console\n(.*?)```", text, re.S) if block.startswith(beginning))
    ran = ""
    for command in re.findall(r"^\$ (.*(?:\n {4}.*)*)", block, re.M):
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"this ended with {done.returncode}: {command}")
        ran += f"$ {command}\n{done.stdout}"
    if update:
        path.write_text(text.replace(block, ran))
    elif ran != block:
        sys.exit(f"{document} says\n{block}\nand this is printed:\n{ran}")
    print(ran, end="")


main(*sys.argv[1:3], update="--update" in sys.argv[3:])
